"""HTTP in; results become answers here."""
