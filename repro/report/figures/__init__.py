"""The figures: those of the paper in its order, then the training curves."""
