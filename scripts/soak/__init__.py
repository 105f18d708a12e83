"""What `soak.py` consists of: studies that are disturbed and looked at without end, and what must hold all the time."""
