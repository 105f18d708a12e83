"""A study: its creation, invariants, presets, search budget and stop requests."""
