"""Samplers, pruners and the distributions of parameters."""
