"""The parts of `soak.py`: inject faults into studies, poll the studies, and check their invariants."""
