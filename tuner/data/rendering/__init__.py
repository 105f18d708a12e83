"""Images of labels: fonts, backgrounds, degradations, PNG. Pure functions of seed, split and sample number."""
