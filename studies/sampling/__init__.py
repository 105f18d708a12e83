"""Samplers, pruners, and the conversion of the search space to Optuna distributions."""
