"""References: exact gradients."""
