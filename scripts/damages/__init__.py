"""The parts of `damage_harness.py`: the damaged study, the kinds of damage, and the checks of the program."""
