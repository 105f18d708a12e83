"""Messages about configuration problems and disk errors, and the writing of files."""
