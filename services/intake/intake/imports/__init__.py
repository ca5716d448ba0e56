"""Files of leads: received, read, taken row by row, and told."""
