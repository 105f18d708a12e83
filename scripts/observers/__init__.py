"""The parts of `watch_harness.py`: train a study, and poll it in a loop."""
