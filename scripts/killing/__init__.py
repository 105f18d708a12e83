"""The parts of `kill_harness.py`: kill runs of a small study at every moment, and look whether it shows."""
