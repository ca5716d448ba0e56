"""Tests that drive the whole stack over HTTP."""
