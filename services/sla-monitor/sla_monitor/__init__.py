"""SLA monitor: opens, closes and fires the clocks that the signed agreement puts on a lead."""
