"""One opened study: its objective, which trial is claimed next, and what is enqueued."""
