"""Pure functions and frozen values."""
