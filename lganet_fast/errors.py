"""The one exception that means the input, not the program, is at fault."""


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what is wrong and what is allowed."""
