"""YAML configuration files: reading, with the line of every key and list item."""
