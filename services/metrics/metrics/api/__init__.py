"""HTTP in, one module per resource: parses, asks a use case, answers. No rules, no SQL."""
