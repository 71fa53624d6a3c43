"""What training reads: the prepared store, the sampling of images, and the views cut out of them."""
