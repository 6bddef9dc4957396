"""Rules that learn in forward passes alone."""
