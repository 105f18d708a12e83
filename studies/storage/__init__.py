"""SQLite, PostgreSQL and the output folder; the only package that uses private Optuna names."""
