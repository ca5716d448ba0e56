"""What the numbers mean: pure functions over what was read. No I/O, no clock, no random."""
