"""The only place where a transaction opens: each module is one thing that the service does."""
