"""The parts of `fault_harness.py`: make disk calls of a small study fail, and check the study afterwards."""
