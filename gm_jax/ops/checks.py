"""Checks of arguments that several rooms share.

Each reads shapes, dtypes and Python numbers only, so it runs while JAX traces and costs nothing in a compiled function.
"""

from typing import Any

from gm_jax.errors import UserError
from gm_jax.types import Array


def assert_batch_of_events(*arrays: Array) -> None:
    """Refuses an array that lacks a batch axis or an event axis.

    A function that sums over the event would return its argument unchanged if there were no event axis.

    Args:
        *arrays: [B, ...] each, with at least one event axis.
    Raises:
        AssertionError: an array has fewer than two axes.
    """
    for array in arrays:
        if array.ndim < 2:
            raise AssertionError(f"Expected [B, ...] with at least one event axis; got shape {array.shape}.")


def check_outputs(network: str, outputs: Any, *shapes: tuple[int, ...]) -> None:
    """Refuses the outputs of somebody's network that are not what a family needs.

    Args:
        network: what it is called, e.g. "the encoder".
        outputs: an array, or a tuple of as many arrays as there are shapes.
        *shapes: the shape of each.
    Raises:
        UserError: another number of arrays, or another shape.
    """
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    has = [tuple(getattr(output, "shape", ("no array",))) for output in found]
    if has != list(shapes):
        wanted, given = (" and ".join(str(list(shape)) for shape in group) for group in (shapes, has))
        raise UserError(f"{network} must return {wanted} for one example, and returns {given}.")


def check_levels(levels: int) -> None:
    """Refuses a number of levels that leaves nothing to model.

    Args:
        levels: L, the number of integer levels of a value.
    Raises:
        ValueError: there are fewer than two levels.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2; got {levels}.")
