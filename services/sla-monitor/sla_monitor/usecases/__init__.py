"""What the SLA monitor does; the only place where a transaction opens."""
