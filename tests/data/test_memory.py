"""Arrays that do not fit into memory are refused before they are asked for."""

import numpy as np
import pytest

from gm_jax.data import memory
from gm_jax.errors import UserError


def test_an_array_that_fits_is_allocated():
    array = memory.allocate((3, 2), np.uint8, "here", "take less")
    assert (array.shape, array.dtype) == ((3, 2), np.uint8)


def test_an_array_that_does_not_fit_is_an_error_with_both_sizes():
    with pytest.raises(UserError, match=r"The 10 examples of here need .* GB of memory; this machine .*: take less"):
        memory.allocate((10, memory.physical()), np.uint8, "here", "take less")


def test_one_byte_more_than_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "physical", lambda: 12)
    assert memory.allocate((3, 2), np.uint16, "here", "take less").nbytes == 12
    with pytest.raises(UserError):
        memory.allocate((13,), np.uint8, "here", "take less")
