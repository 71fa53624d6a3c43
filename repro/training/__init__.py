"""Training a network in its run folder (Sec. 4 and 5)."""
