"""Tables, figures, verdicts and the page, made from records alone. Imports no torch."""
