"""The parts of `fault_harness.py`: the calls of a run, the process in which one fails, and the check of each study."""
