"""Analysis of a study: its best trial, the candidates for retraining, and their confirmation."""
