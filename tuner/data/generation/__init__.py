"""Generating datasets of Khmer digits or other characters: pure functions of recipe, split and sample number."""
