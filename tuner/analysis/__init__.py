"""Analysis of a study: its best trial, and confirmation of its best configurations by retraining."""
