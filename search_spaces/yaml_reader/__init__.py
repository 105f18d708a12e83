"""Read YAML with the line of every value."""
