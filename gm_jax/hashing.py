r"""SHA-256 of arrays and files. Each kind of stored data has its own byte format, which must never change.

    leaf_digest      a leaf in a checkpoint's manifest:    "float32[2, 3]" + bytes
    array_digest     an array of a data set or its cache:  "<f4 (2, 3)\n" + little-endian bytes
    tensors_digest   named tensors in a file of weights:   for each name in order, "name <f4 (2, 3)\n" + bytes
    json_digest      a JSON document, with sorted keys
    file_digest      the bytes of a file

All digests are 64 hexadecimal digits.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def leaf_digest(array: np.ndarray) -> str:
    """Hashes the dtype, shape and bytes of a checkpoint's leaf."""
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # hashlib cannot read a bfloat16 buffer
    return digest.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Hashes the dtype, shape and little-endian bytes of an array of a data set."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = begun_array_digest(array.dtype, array.shape)
    digest.update(array.data)
    return digest.hexdigest()


def begun_array_digest(dtype: np.dtype, shape: tuple[int, ...]) -> "hashlib._Hash":
    """Returns the hash of `array_digest` before the array's bytes, which are then given to its `update` in parts."""
    return hashlib.sha256(f"{dtype.newbyteorder('<').str} {shape}\n".encode())


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Hashes the names, dtypes, shapes and bytes of tensors; the order of the mapping does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def json_digest(document: Any) -> str:
    """Hashes a JSON document; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Hashes the bytes of a file without holding the whole file in memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
