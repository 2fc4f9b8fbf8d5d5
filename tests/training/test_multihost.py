"""One process alone needs no collectives; of several, each learns of the errors of all."""

import json

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.training import multihost


@pytest.fixture
def three(monkeypatch):
    """Makes this process 1 of three; returns a function that sets the documents of the other two."""
    others: list[bytes] = []

    def allgather(own):
        documents = [others[0], None, others[1]]
        rows = [own if text is None else pad(text, own) for text in documents]
        return np.stack(rows)

    def pad(text: bytes, own: np.ndarray) -> np.ndarray:
        if own.dtype == np.int32:
            return np.array([len(text)], np.int32)
        row = np.zeros_like(own)
        row[: len(text)] = np.frombuffer(text, np.uint8)
        return row

    monkeypatch.setattr(multihost.jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost.jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost.multihost_utils, "process_allgather", allgather)
    return lambda *documents: others.extend(json.dumps(document).encode() for document in documents)


def fail(text: str):
    raise UserError(text)


def test_with_one_process_nothing_changes():
    document = object()  # not even JSON
    assert multihost.all_gather_json(document) == [document]
    assert multihost.broadcast(document) is document
    assert multihost.all_or_none(lambda: document) is document
    assert multihost.is_primary()
    with pytest.raises(UserError, match="as it is") as raised:
        multihost.all_or_none(lambda: fail("as it is"))
    assert not isinstance(raised.value, multihost.CollectiveUserError)


def test_each_process_gets_all_documents_in_order_and_of_any_length(three):
    three({"a": 1}, "x" * 3000)
    assert multihost.all_gather_json([None, "\u00e9"]) == [{"a": 1}, [None, "\u00e9"], "x" * 3000]


def test_process_0_broadcasts(three):
    three(7, None)
    assert multihost.broadcast(8) == 7
    assert not multihost.is_primary()


def test_an_error_elsewhere_is_raised_here_too_and_names_the_process(three):
    three(None, "the disk is full")
    with pytest.raises(multihost.CollectiveUserError, match=r"^process 2: the disk is full$"):
        multihost.all_or_none(lambda: 1)


def test_an_error_of_all_processes_names_none(three):
    three("no data", "no data")
    with pytest.raises(multihost.CollectiveUserError, match=r"^no data$"):
        multihost.all_or_none(lambda: fail("no data"))


def test_without_errors_each_process_gets_its_own_result(three):
    three(None, None)
    assert multihost.all_or_none(lambda: "own") == "own"
