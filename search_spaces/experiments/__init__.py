"""Experiments files: reading, checks, overrides and warnings."""
