"""`symmetric`: one projection for queries and keys."""
