"""UsageError: what was asked for has no meaning, whatever the files hold."""


class UsageError(ValueError):
    """Arguments that do not go together, or that no file or model could satisfy; exit code 2."""
