"""Where agents, targets and noise run: one Protocol in `base`, and its implementations."""
