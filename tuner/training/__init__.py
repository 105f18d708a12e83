"""The training of a single experiment from its first to its last epoch, independent of Optuna."""
