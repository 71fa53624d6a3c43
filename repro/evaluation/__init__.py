"""Trained nets on a split: predictions and errors, ensembles, nearest neighbours (Sec. 6)."""
