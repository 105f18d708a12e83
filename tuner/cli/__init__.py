"""The command line: a small file for each command, one parser, one place that turns errors into messages."""
