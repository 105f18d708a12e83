"""The search space: ranges, choices and conditions of hyperparameters."""
