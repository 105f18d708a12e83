"""A study as files for other programs: results JSON and CSV."""
