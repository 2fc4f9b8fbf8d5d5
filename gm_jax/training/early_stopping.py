"""Early stopping: training ends when validation has stopped improving."""

from collections.abc import Sequence


def is_out_of_patience(values: Sequence[float], *, patience: int) -> bool:
    """Whether the last `patience` validations are no better than the best one before them.

    Args:
        values: one for each validation so far; larger is better.
        patience: how many validations without improvement end training; 0 for never.

    Example:
        >>> is_out_of_patience([-3.0, -2.0, -2.5, -2.1], patience=2)
        True
        >>> is_out_of_patience([-3.0, -2.0, -2.5, -1.9], patience=2)
        False
    """
    return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])
