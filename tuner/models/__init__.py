"""The networks that read the characters of an image."""
