"""The work loop and the processes that run it."""
