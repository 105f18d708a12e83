"""The parts of `damage_harness.py`: the study that is damaged, the damages, and what the program makes of them."""
