"""The dashboard of a study: a read-only optuna-dashboard, with notes and artifacts of the trials."""
