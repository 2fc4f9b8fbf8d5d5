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


def check_outputs(network: str, outputs: Any, *shapes: tuple[int | str, ...]) -> None:
    """Refuses the outputs of somebody's network that are not what a family needs.

    Args:
        network: what it is called, e.g. "the encoder".
        outputs: an array, or a tuple of as many arrays as there are shapes.
        *shapes: the shape of each, with the number of examples first; a letter in it, such as "F", is any size.
    Raises:
        UserError: another number of arrays, or another shape.
    """
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    has = [tuple(getattr(output, "shape", ("no array",))) for output in found]
    if len(has) != len(shapes) or not all(map(_fits, has, shapes)):
        wanted, given = (" and ".join(map(_shown, group)) for group in (shapes, has))
        count = "one example" if shapes[0][0] == 1 else f"{shapes[0][0]} examples"
        raise UserError(f"{network} must return {wanted} for {count}, and returns {given}.")


def check_example(shape: tuple[int, ...], batch: Array) -> None:
    """Refuses data whose examples have another shape than the one that a family was made for.

    Args:
        shape: of one example, as the family has it.
        batch: [B, ...] data.
    Raises:
        UserError: another shape.
    """
    if batch.shape[1:] != tuple(shape):
        given, wanted = _shown(batch.shape[1:]), _shown(shape)
        raise UserError(f"the model is made for examples of shape {wanted}, and the data have {given}.")


def _fits(shape: tuple[int | str, ...], wanted: tuple[int | str, ...]) -> bool:
    sizes = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(isinstance(size, str) or has == size for has, size in sizes)


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def check_levels(levels: int) -> None:
    """Refuses a number of levels that leaves nothing to model.

    Args:
        levels: L, the number of integer levels of a value.
    Raises:
        ValueError: there are fewer than two levels.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2; got {levels}.")
