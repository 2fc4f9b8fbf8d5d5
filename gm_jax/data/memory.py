"""Arrays that fit into the memory of this machine, or an error that states both sizes.

Decoded images of more than MOST_IN_MEMORY bytes stay on disk: `split_writer` decodes them into the cache, and
`mapped_arrays` reads them from there.
"""

import math
import os

import numpy as np

from gm_jax.errors import UserError

MOST_IN_MEMORY = 2**30  # bytes of the decoded images of a data set, all splits together


def allocate(shape: tuple[int, ...], dtype: type | np.dtype, origin: str, remedy: str) -> np.ndarray:
    """Allocates an array of examples.

    Args:
        shape: [N, ...].
        dtype: of the array.
        origin: where the examples come from, e.g. a file, for the message.
        remedy: what to do if they are too many, e.g. "choose a smaller set".
    Raises:
        UserError: the array is larger than the memory.
    """
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        if num_bytes > physical():
            raise MemoryError
        return np.empty(shape, dtype)
    except (MemoryError, ValueError):
        raise UserError(
            f"The {shape[0]} examples of {origin} need {num_bytes / 2**30:.3g} GB of memory; this machine has "
            f"{physical() / 2**30:.3g} GB: {remedy}."
        ) from None


def physical() -> int:
    """Returns the bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
