"""Messages: the one exception for a user's mistake, and numbers with their noun."""


class UserError(Exception):
    """A mistake that the user can mend.

    Its text is one line: it names the bad value, what would be right and, where there is one, the command that mends
    it. The command line prints it as ``bnn: TEXT`` and exits with status 2.
    """


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
