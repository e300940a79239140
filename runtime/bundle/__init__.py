"""The bundle: schema, opening, engines, and the API of an application."""
