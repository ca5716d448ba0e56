"""Leads and activities over HTTP, one or many, many requests in one transaction."""
