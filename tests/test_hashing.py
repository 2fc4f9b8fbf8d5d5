"""Holds each digest to a committed value, so that stored checkpoints, caches and weights still verify."""

import hashlib

import ml_dtypes
import numpy as np
import pytest

from gm_jax import hashing

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("found", "committed"),
    [
        (hashing.leaf_digest(ARRAY), "105dad27b7bb238e17947fcd291b4c11a424a8c08b852ae401504f6f7d11ce32"),
        (
            hashing.leaf_digest(np.ones(3, ml_dtypes.bfloat16)),
            "4fe80d919e297ed5bcfd72f04c65d18644025d1ac89561bffb63d400580ec4e7",
        ),
        (hashing.array_digest(ARRAY), "d74c1628aef7dc3ca961af35221b493f865c9be6444a1a1b8777a1fb65891932"),
        (
            hashing.tensors_digest({"b": ARRAY, "a": np.asarray(3, np.int32)}),
            "511f3ce800330c5abd7f2c18fb74635c1e56ac34417859f50620e807dcc8624e",
        ),
        (
            hashing.json_digest({"b": [1, 2.5, None], "a": "x"}),
            "b649bb117135db06f8230f303b8eee17689cf4ec3a9d3052fa3964c2b941e68c",
        ),
    ],
)
def test_a_digest_has_the_value_that_stored_files_carry(found, committed):
    assert found == committed


@pytest.mark.parametrize("digest", [hashing.leaf_digest, hashing.array_digest])
def test_a_digest_changes_with_the_dtype_shape_and_bytes_but_not_the_layout(digest):
    assert digest(np.asfortranarray(ARRAY)) == digest(ARRAY)
    others = [ARRAY.reshape(3, 2), ARRAY.view(np.int32), ARRAY.astype(np.float64), ARRAY * np.float32(1 + 2**-23)]
    assert len({digest(ARRAY), *map(digest, others)}) == 5


def test_the_digest_of_a_data_set_does_not_depend_on_the_byte_order():
    assert hashing.array_digest(ARRAY.astype(">f4")) == hashing.array_digest(ARRAY)


def test_the_digest_of_tensors_changes_with_names_dtypes_shapes_and_values():
    one = {"a": np.arange(4, dtype=np.float32)}
    assert hashing.tensors_digest(one) == hashing.tensors_digest({"a": np.arange(8, dtype=np.float32)[::2] / 2})
    others = [{"b": one["a"]}, {"a": one["a"].reshape(2, 2)}, {"a": one["a"].astype(np.float64)}, {"a": one["a"] + 1}]
    assert hashing.tensors_digest(one) not in map(hashing.tensors_digest, others)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"some bytes")
    assert hashing.file_digest(tmp_path / "file") == hashlib.sha256(b"some bytes").hexdigest()
