"""SQL by subject. Nothing here decides anything or opens a transaction."""
