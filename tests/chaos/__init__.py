"""Faults of real processes under load, against a ledger of what was acknowledged."""
