"""The comparison of searches by `scripts/compare_search.py`: tasks, trainings, competitors and the report."""
