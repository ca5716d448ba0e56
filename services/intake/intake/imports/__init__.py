"""Files of leads: received, read, imported row by row, and reported."""
