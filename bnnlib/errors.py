"""The one exception for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can mend.

    Its text is one line: it names the bad value, what would be right and, where there is one, the command that mends
    it. The command line prints it as ``bnn: TEXT`` and exits with status 2.
    """
