"""The parts of `fault_harness.py`: the file-system calls of a study, the process in which one fails, the checks."""
