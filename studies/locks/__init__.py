"""PostgreSQL advisory locks, which the workers on all machines share."""
