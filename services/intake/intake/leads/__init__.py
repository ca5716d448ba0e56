"""Leads, the ground of all: the form in which they come, whom it speaks of, what is kept of a person, and looking them up."""
