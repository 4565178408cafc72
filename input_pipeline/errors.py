"""Errors that a user can fix: main prints one line and exits with the error's exit code."""


class UserError(Exception):
    """Base of all errors that end the program with one line and no traceback."""

    exit_code = 1


class UsageError(UserError):
    """The command is wrong. The message names the flag, its value and how to fix it."""

    exit_code = 2


class DataError(UserError):
    """The data is bad. The message names the file or record and the reason."""

    exit_code = 3
