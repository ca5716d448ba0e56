"""Use cases, each in one transaction, and what libraries know."""
