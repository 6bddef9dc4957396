"""The one error that means "you asked for something that cannot be": a sentence, no traceback in the terminal."""


class UsageError(ValueError):
    """Bad input. The message is one sentence: what is wrong, where, and the way out."""
