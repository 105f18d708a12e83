"""The study in a browser: optuna-dashboard, made read-only and served on one address; notes and artifacts."""
