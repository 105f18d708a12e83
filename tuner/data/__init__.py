"""Datasets: generating, reading, caching, loading."""
