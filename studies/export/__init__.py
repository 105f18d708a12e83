"""Export of a study to files for other programs: results JSON and CSV."""
