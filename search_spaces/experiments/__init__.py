"""Files of experiments (presets): reading, checks and warnings."""
