"""Polling a study while it trains, and comparing it with one that was left alone."""
