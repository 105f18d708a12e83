"""The parts of `watch_harness.py`: run a study, and poll a study in a loop."""
