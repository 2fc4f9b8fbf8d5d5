"""What several processes agree on: alone it is nothing; with others each hears of everybody's mistakes."""

import json

import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.training import multihost


@pytest.fixture
def three(monkeypatch):
    """Process 1 of three; a function that sets what the other two give."""
    others: list[bytes] = []

    def allgather(mine):
        documents = [others[0], None, others[1]]
        rows = [mine if text is None else pad(text, mine) for text in documents]
        return np.stack(rows)

    def pad(text: bytes, mine: np.ndarray) -> np.ndarray:
        if mine.dtype == np.int32:
            return np.array([len(text)], np.int32)
        row = np.zeros_like(mine)
        row[: len(text)] = np.frombuffer(text, np.uint8)
        return row

    monkeypatch.setattr(multihost.jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost.jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost.multihost_utils, "process_allgather", allgather)
    return lambda *documents: others.extend(json.dumps(document).encode() for document in documents)


def fail(text: str):
    raise UserError(text)


def test_alone_everything_is_as_it_was():
    document = object()  # not even JSON
    assert multihost.gather(document) == [document]
    assert multihost.from_primary(document) is document
    assert multihost.together(lambda: document) is document
    assert multihost.is_primary()
    with pytest.raises(UserError, match="as it is") as raised:
        multihost.together(lambda: fail("as it is"))
    assert not isinstance(raised.value, multihost.AgreedError)


def test_each_gets_all_documents_in_order_whatever_their_lengths(three):
    three({"a": 1}, "x" * 3000)
    assert multihost.gather([None, "\u00e9"]) == [{"a": 1}, [None, "\u00e9"], "x" * 3000]


def test_process_0_decides(three):
    three(7, None)
    assert multihost.from_primary(8) == 7
    assert not multihost.is_primary()


def test_a_mistake_elsewhere_is_raised_here_too_and_says_where(three):
    three(None, "the disk is full")
    with pytest.raises(multihost.AgreedError, match=r"^process 2: the disk is full$"):
        multihost.together(lambda: 1)


def test_a_mistake_that_all_have_made_is_nobodys(three):
    three("no data", "no data")
    with pytest.raises(multihost.AgreedError, match=r"^no data$"):
        multihost.together(lambda: fail("no data"))


def test_without_mistakes_each_gets_its_own_result(three):
    three(None, None)
    assert multihost.together(lambda: "mine") == "mine"
