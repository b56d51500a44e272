"""Pure and synchronous: no I/O, no clocks, no tasks; time, randomness and bytes come in as arguments."""
