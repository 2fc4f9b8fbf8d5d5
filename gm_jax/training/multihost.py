"""What several processes agree on before they go on together. With one process each function does nothing but return.

Every process must come to each of these calls, in the same order: they are collectives.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from gm_jax.errors import UserError

T = TypeVar("T")

_BLOCK = 1024  # documents are padded to a multiple, or each length would compile a program of its own


class AgreedError(UserError):
    """A `UserError` that every process raises at the same place: all may leave in order."""


def is_primary() -> bool:
    """Whether this is process 0: the one that writes, prints and decides."""
    return jax.process_index() == 0


def gather(document: Any) -> list[Any]:
    """Each process's JSON document, in the order of the processes."""
    if jax.process_count() == 1:
        return [document]
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(text)], np.int32)).reshape(-1)
    padded = np.zeros(-(-int(lengths.max()) // _BLOCK) * _BLOCK, np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def from_primary(document: Any) -> Any:
    """Process 0's JSON document; what the others give is not looked at."""
    return document if jax.process_count() == 1 else gather(document if is_primary() else None)[0]


def together(act: Callable[[], T]) -> T:
    """What `act` returns here, once it has returned everywhere.

    Raises:
        AgreedError: it raised a `UserError` in some process; the message says in which.
    """
    if jax.process_count() == 1:
        return act()
    result, mistake = None, None
    try:
        result = act()
    except UserError as error:
        mistake = str(error)
    mistakes = gather(mistake)
    made = {process: text for process, text in enumerate(mistakes) if text is not None}
    if made:
        process, text = next(iter(made.items()))
        raise AgreedError(text if set(mistakes) == {text} else f"process {process}: {text}")
    return result
