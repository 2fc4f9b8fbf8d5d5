"""Collectives of small JSON documents between processes. With one process each of them returns at once.

Every process must make each of these calls, in the same order.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from gm_jax.errors import UserError

T = TypeVar("T")

_BLOCK = 1024  # documents are padded to a multiple of it, because each length compiles a program


class CollectiveUserError(UserError):
    """A `UserError` that every process raises at the same call, so that all of them can leave in order."""


def is_primary() -> bool:
    """Returns whether this is process 0: the one that writes, prints and decides."""
    return jax.process_index() == 0


def all_gather_json(document: Any) -> list[Any]:
    """Gathers one JSON document from each process, in the order of the processes."""
    if jax.process_count() == 1:
        return [document]
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(text)], np.int32)).reshape(-1)
    padded = np.zeros(-(-int(lengths.max()) // _BLOCK) * _BLOCK, np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded), np.uint8)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def broadcast(document: Any) -> Any:
    """Returns process 0's JSON document on every process and ignores the others' arguments."""
    return document if jax.process_count() == 1 else all_gather_json(document if is_primary() else None)[0]


def all_or_none(act: Callable[[], T]) -> T:
    """Calls a function on every process and returns its result if it succeeded everywhere.

    Raises:
        CollectiveUserError: some process raised a `UserError`; the message names the process.
    """
    if jax.process_count() == 1:
        return act()
    result, error_text = None, None
    try:
        result = act()
    except UserError as error:
        error_text = str(error)
    texts = all_gather_json(error_text)
    failed = {process: text for process, text in enumerate(texts) if text is not None}
    if failed:
        process, text = next(iter(failed.items()))
        raise CollectiveUserError(text if set(texts) == {text} else f"process {process}: {text}")
    return cast(T, result)
