"""One trial: its record, who claims it, its lease and its targets."""
