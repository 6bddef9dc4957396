"""Rules that learn from correlations."""
