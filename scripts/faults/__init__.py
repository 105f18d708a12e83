"""The parts of `fault_harness.py`: let the disk fail under a small study at every moment, and look whether it shows."""
