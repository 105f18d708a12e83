"""A study opened for training: its objective, the choice of the next trial, and the enqueueing of trials."""
