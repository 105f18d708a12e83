"""SQLite, PostgreSQL and the output folder; the only package that uses private names of Optuna."""
