"""The parts of `soak.py`: disturb and poll studies, and check their invariants."""
