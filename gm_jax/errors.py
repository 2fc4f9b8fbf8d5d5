"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
    """Something that whoever gave the command can mend: a name, a path, a size.

    The command line prints its message (at most three lines) and exits with code 2, without a traceback;
    every other exception is a defect of this code and keeps its traceback.
    """


_REFUSED_OPTIONS = {
    "label": "this model has no labels to sample by: leave the label out",
    "temperature": "this model cannot be sampled at a temperature: leave --temperature out",
}


def refuse_options(**options: object) -> None:
    """Refuses the options of `sample` that a model does not have.

    Args:
        **options: `label`, `temperature`; None where it was not given.
    Raises:
        UserError: an option is given.
    """
    for name, value in options.items():
        if value is not None:
            raise UserError(_REFUSED_OPTIONS[name])
