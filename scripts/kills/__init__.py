"""The parts of `kill_harness.py`: kill the processes of a study at named points and at random moments, and compare."""
