"""Studies: their creation, invariants, presets, search budgets and stop requests."""
