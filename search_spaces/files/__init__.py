"""Files: opening, reading and locking."""
