"""Code shared by all harnesses: processes, a small real study, its snapshots, databases and kill points."""
