"""Storage of a study: its database (SQLite or PostgreSQL) and its output folder.

Only this package uses private Optuna names.
"""
