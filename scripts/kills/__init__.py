"""The parts of `kill_harness.py`: the schedule of kills, the processes that are killed, and the check of each study."""
