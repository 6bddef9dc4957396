"""What a rule really does: the tracer of one step, and the audit of its claims."""
