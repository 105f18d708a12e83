"""How a study stands: trials, workers, remaining time, disk usage."""
