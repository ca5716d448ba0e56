"""Intake: takes leads and activities in over HTTP, decides who a lead is, and publishes what it captured."""
