"""HTTP in: one module per resource. No rules and no SQL."""
