"""The rules of a lead's life, as pure functions over frozen values: no I/O, no clock, no random."""
