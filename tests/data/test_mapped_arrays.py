"""Arrays on disk: the rows of np.take, and an error in place of a crash if the file is not whole."""

import mmap
import os

import numpy as np
import pytest

from gm_jax.data import mapped_arrays
from gm_jax.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (50, 7, 5, 3)).astype(np.uint8)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def test_a_mapped_array_is_the_saved_one_and_cannot_be_changed(file):
    x = mapped_arrays.open_array(file)
    assert (type(x), x.dtype, x.shape) == (np.ndarray, X.dtype, X.shape)
    np.testing.assert_array_equal(x, X)
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    assert mapped_arrays.is_mapped(x)
    assert mapped_arrays.is_mapped(x[3:9, 0])
    assert not mapped_arrays.is_mapped(X)


@pytest.mark.parametrize("indices", [[[3, 49], [3, 0]], [5], [], [10, 11, 12]])
def test_rows_are_those_of_take_and_new_arrays(file, indices):
    x, indices = mapped_arrays.open_array(file), np.array(indices, np.int64)
    for array, expected in ((x, X), (x[10:40], X[10:40]), (X, X), (x[:, :, ::-1], X[:, :, ::-1])):
        rows = mapped_arrays.take(array, np.minimum(indices, len(expected) - 1))
        np.testing.assert_array_equal(rows, np.take(expected, np.minimum(indices, len(expected) - 1), axis=0))
        assert not np.shares_memory(rows, array)
        rows[...] = 0  # is not read-only


@pytest.mark.parametrize("first_row", [0, 7])  # of a view
def test_rows_of_a_file_of_many_pages_are_read_ahead_from_their_own_pages(tmp_path, monkeypatch, first_row):
    x = np.random.default_rng(0).integers(0, 256, (300, 3001)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    indices = np.random.default_rng(1).integers(0, 290, (4, 20))
    mapped, asked = mapped_arrays.open_array(tmp_path / "x.npy")[first_row:], []
    monkeypatch.setattr(mapped_arrays._Mapping, "madvise", lambda _, *args: asked.append(args), raising=False)
    np.testing.assert_array_equal(mapped_arrays.take(mapped, indices), x[first_row:][indices])
    header = (tmp_path / "x.npy").stat().st_size - x.size
    starts = [header + (first_row + row) * 3001 for row in np.unique(indices).tolist()]
    pages = {page for start in starts for page in range(start // mmap.PAGESIZE, -(-(start + 3001) // mmap.PAGESIZE))}
    assert {advice for advice, _, _ in asked} == {mmap.MADV_WILLNEED}
    assert all(start % mmap.PAGESIZE == 0 for _, start, _ in asked)
    found = {page for _, s, n in asked for page in range(s // mmap.PAGESIZE, -(-(s + n) // mmap.PAGESIZE))}
    assert found == pages
    assert 20 < len(asked) < len(starts)  # neighbours are one request


@pytest.mark.parametrize("damage", ["short", "long", "header", "fortran", "objects", "link", "folder", "missing"])
def test_what_is_not_a_whole_array_is_refused(file, tmp_path, damage):
    content = file.read_bytes()
    if damage in ("short", "long", "header"):
        file.write_bytes({"short": content[:-1], "long": content + b"0", "header": content[:50]}[damage])
    elif damage == "fortran":
        np.save(file, np.asfortranarray(X))
    elif damage == "objects":
        np.save(file, np.array([{}]), allow_pickle=True)
    else:
        file = tmp_path / "y.npy"
        if damage == "link":
            file.symlink_to(tmp_path / "x.npy")
        elif damage == "folder":
            file.mkdir()
    with pytest.raises((OSError, ValueError)):
        mapped_arrays.open_array(file)


def test_a_pipe_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="is not a plain file"):
        mapped_arrays.open_array(tmp_path / "x.npy")


def test_an_empty_array_is_read(tmp_path):
    np.save(tmp_path / "x.npy", X[:0])
    assert mapped_arrays.open_array(tmp_path / "x.npy").shape == (0, 7, 5, 3)


def test_a_file_that_is_cut_short_while_it_is_used_is_an_error_that_names_it(file):
    x = mapped_arrays.open_array(file)
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(UserError, match=rf"{file} was cut short while it was read.\nRun the same command again"):
        mapped_arrays.take(x, np.array([0]))


def test_a_file_that_is_removed_while_it_is_used_stays_readable(file):
    x = mapped_arrays.open_array(file)
    file.unlink()
    np.testing.assert_array_equal(mapped_arrays.take(x, np.array([4, 2])), X[[4, 2]])


def test_headers_are_those_of_numpy(tmp_path):
    for array in (X, np.arange(6, dtype=np.int32)):
        with (tmp_path / "written.npy").open("wb") as stream:
            mapped_arrays.write_header(stream, array.shape, array.dtype)
            stream.write(array.tobytes())
        np.save(tmp_path / "saved.npy", array)
        assert (tmp_path / "written.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()
        with (tmp_path / "saved.npy").open("rb") as stream:
            assert mapped_arrays.read_header(stream) == (array.shape, array.dtype, False)
