"""HTTP in: one module per resource. No rules, no SQL."""
