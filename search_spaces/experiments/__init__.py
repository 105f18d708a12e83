"""Experiments files (presets): reading, checks and warnings."""
