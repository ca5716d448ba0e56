"""What is configured of a tool: its source, secrets, mapping and adapter."""
