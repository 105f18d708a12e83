"""Samplers, pruners and Optuna distributions of the search space."""
