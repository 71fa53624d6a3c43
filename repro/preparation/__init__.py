"""From the images of a dataset to a prepared store (Sec. 2)."""
