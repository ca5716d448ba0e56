"""Intake: captures leads and activities over HTTP, decides who a lead is, and publishes what it captured."""
