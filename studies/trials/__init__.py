"""Trials: their records, claims, leases, rankings and targets."""
