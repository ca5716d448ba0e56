"""HTTP in: one module per resource; no rules and no SQL."""
