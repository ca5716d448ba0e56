"""HTTP in: one module per resource, no rules, no SQL."""
