"""What all harnesses share: processes, a small real study, its snapshot, databases and the points to kill at."""
