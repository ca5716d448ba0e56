"""Leads and activities in over HTTP, one or many, each many in one transaction."""
