"""What the service does, one file each; the only place where a transaction opens."""
