"""What the numbers allow to be said: validity of blocks, placement accuracy, comparison. Pure: no I/O, clocks or tasks.

Randomness comes from a seed. The modules read `core.result` and know nothing of how it came about.
"""
