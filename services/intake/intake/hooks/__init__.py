"""What tools send: verified, processed, fetched where it only names a record, and retried."""
