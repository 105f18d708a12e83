"""The status of a study: trials, workers, remaining time, disk usage."""
