"""Arrays that stay on disk: .npy files, mapped into memory, of which only the rows that are asked for are read.

    x = open_array(file)          # an np.ndarray, read-only; opening it reads nothing
    batch = take(x, indices)      # new array; the same as np.take for every array

The system keeps the pages that were read for as long as memory is free, and drops them without asking if it is not. A
page that the file has no longer ends the process by SIGBUS, hence `take` looks at the file's length before; a file that
is cut short in the middle of `take` still does.
"""

import math
import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gm_jax.errors import UserError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _Mapping(mmap.mmap):
    """The pages of a file, which know the file's name."""

    file: Path


def open_array(file: Path) -> np.ndarray:
    """Maps an array of `numpy.save` into memory, read-only.

    Args:
        file: the file; not a link.
    Raises:
        OSError: it is missing, a link, or may not be read.
        ValueError: it is not an array of numbers in C order, or not as long as its header declares.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{file} is not a plain file")
        shape, dtype, in_fortran_order = read_header(stream)
        start = stream.tell()
        if in_fortran_order:
            raise ValueError(f"{file} is not in C order")
        if start + math.prod(shape) * dtype.itemsize != status.st_size:
            raise ValueError(f"{file} does not have the size that it declares")
        if not math.prod(shape):
            return np.empty(shape, dtype)
        mapping = _Mapping(descriptor, 0, access=mmap.ACCESS_READ)
    mapping.file = file
    mapping.madvise(mmap.MADV_RANDOM)  # else each page of a random row reads its neighbours too
    return np.ndarray(shape, dtype, buffer=mapping, offset=start)


def read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Reads shape, dtype and whether the order is Fortran's of an array of `numpy.save`; the data follow in the stream.

    Raises:
        ValueError: it is not such an array, or holds Python objects.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array has the format {version}")
    shape, in_fortran_order, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array holds Python objects, which are not read")
    return shape, dtype, in_fortran_order


def write_header(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Writes the header of `numpy.save`, after which the data follow in C order."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def is_mapped(array: np.ndarray) -> bool:
    """Returns whether an array, or the one that it is a view of, stays on disk."""
    return _mapping_of(array) is not None


def take(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Takes rows of an array, as `np.take(array, indices, axis=0)` does.

    Args:
        array: [N, ...], mapped or not.
        indices: [...] integers 0 .. N - 1.
    Returns:
        [..., ...], a new array in memory.
    Raises:
        UserError: the file of a mapped array was cut short since it was opened.
    """
    mapping = _mapping_of(array)
    if mapping is not None:
        if mapping.size() < len(mapping):
            raise UserError(
                f"{mapping.file} was cut short while it was read.\n"
                "Run the same command again: it decodes the data again and resumes."
            )
        _read_ahead(mapping, array, indices)
    return np.take(array, indices, axis=0)


def _mapping_of(array: Any) -> _Mapping | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, _Mapping) else None


def _read_ahead(mapping: _Mapping, array: np.ndarray, indices: np.ndarray) -> None:
    """Asks the system for the pages of all rows at once, so that the disk has many requests to work on."""
    if not array.flags.c_contiguous:
        return
    first = array.__array_interface__["data"][0] - np.frombuffer(mapping, np.uint8, 1).__array_interface__["data"][0]
    rows = np.unique(indices)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)  # of neighbours
    row_bytes = array.strides[0]
    for run in filter(len, runs):
        start = first + int(run[0]) * row_bytes
        page = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, page, start + len(run) * row_bytes - page)
