"""Open, read and lock files."""
