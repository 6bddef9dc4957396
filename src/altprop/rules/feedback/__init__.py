"""Rules that send the error back by other ways than the transposed weights."""
