"""What tools send: proved, taken, fetched where it only names a record, and tried again."""
