"""The one exception that means "the user can mend this": commands print its text in one line and no traceback."""


class UserError(ValueError):
    """A mistake in a config, a file or an argument; the text says what was expected, what came and what to do."""
