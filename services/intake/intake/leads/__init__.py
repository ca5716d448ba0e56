"""Leads: submissions and their normalization, identity keys, the lead itself, and looking it up."""
