"""Intake's rules as pure functions: what a submission is, whether it meets the policy, and whose it is."""
