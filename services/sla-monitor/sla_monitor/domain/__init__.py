"""Pure rules of clocks, calendars and clauses: no I/O, no clock, no random."""
