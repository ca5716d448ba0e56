"""SQL by subject. Nothing here opens a transaction or decides what a number means."""
