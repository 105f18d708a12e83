"""The parts of `benchmark.py`, one module each."""
