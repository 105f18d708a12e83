"""File locks and advisory locks of PostgreSQL."""
