"""SQL by subject; nothing here opens a transaction."""
