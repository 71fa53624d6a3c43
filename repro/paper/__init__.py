"""What the paper says, as data: networks, recipes, variants, scales and targets. Imports no torch."""
