"""The training engine: one experiment from its first to its last epoch. It knows nothing of Optuna."""
