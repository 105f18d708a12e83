"""One trial: its record, its claim, its lease and its targets."""
