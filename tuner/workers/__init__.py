"""The loop that claims and trains trials, and the worker processes that run it."""
