"""The parts of `damage_harness.py`: the study that is damaged, the damages, and the check of what the program does."""
