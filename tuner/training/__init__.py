"""The training engine: trains one experiment from its first to its last epoch, independent of Optuna."""
