"""Errors that a user can mend: main prints their one line and exits with their code."""


class UserError(Exception):
    """Base of all errors that end the program with one line and no traceback."""

    exit_code = 1


class UsageError(UserError):
    """The command is wrong; the message names the flag, its value and the mend."""

    exit_code = 2


class DataError(UserError):
    """The data is bad; the message says which file or record and why."""

    exit_code = 3
