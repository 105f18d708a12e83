"""Messages about problems of the configuration and of the disk."""
