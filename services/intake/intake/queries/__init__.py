"""SQL by subject. Nothing here opens a transaction."""
