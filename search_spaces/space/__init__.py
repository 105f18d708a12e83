"""Search spaces: ranges, choices and conditions of hyperparameters."""
