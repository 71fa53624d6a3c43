"""From image files to batches on the device: sources, the prepared store, sampling and views."""
