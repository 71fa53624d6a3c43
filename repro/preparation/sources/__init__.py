"""Where images come from, one module per origin."""
