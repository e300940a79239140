"""The bundle: schema, opening, engines, and what an application calls."""
