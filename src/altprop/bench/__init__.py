"""The bench: protocol, contenders, the training loop, the store and its statistics."""
