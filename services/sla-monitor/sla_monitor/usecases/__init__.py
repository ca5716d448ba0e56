"""The only place where a transaction opens."""
