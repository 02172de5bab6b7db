"""Pure values and rules: no I/O, no clock, no randomness. Times and ids arrive as arguments."""
