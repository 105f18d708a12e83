"""Opening and locking files."""
