"""Rules that try a small change at random, and learn from what it does to the loss."""
