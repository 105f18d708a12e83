"""A study from its creation on: invariants, presets, search budget, requests to stop."""
