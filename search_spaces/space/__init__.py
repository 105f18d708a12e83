"""Search spaces: ranges, choices and conditions of hyperparameters, read from YAML files."""
