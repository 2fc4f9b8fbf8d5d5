"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """Something that whoever gave the command can mend: a name, a path, a size.

    The command line prints its message (at most three lines) and exits with code 2, without a traceback;
    every other exception is a defect of this code and keeps its traceback.
    """
