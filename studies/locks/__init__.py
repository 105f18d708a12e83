"""Advisory locks of PostgreSQL."""
