"""Files are written whole or not at all, and never through a link."""

import io
import json
import os
import pathlib
import stat

import pytest

from gm_jax import files


def test_a_file_is_replaced_by_one_rename_and_no_temporary_file_stays(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first", "second, longer, ≤ 3"):
        files.write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.json"
    files.write_text(path, "old")

    def fail():
        with files.replacing(path) as file:
            file.write(b"n")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_left_behind_is_known_as_such(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    monkeypatch.setattr(pathlib.Path, "replace", _die)
    monkeypatch.setattr(pathlib.Path, "unlink", _die)
    with pytest.raises(OSError, match="killed"):
        files.write_text(path, "torn")
    (left,) = tmp_path.iterdir()
    assert files.is_temporary(left, of=path)
    assert not files.is_temporary(left, of=tmp_path / "versions.json")
    assert not files.is_temporary(path, of=path)


def _die(*_):
    raise OSError("killed")


def test_every_write_has_a_name_of_its_own(tmp_path):
    """Two writers of one file never meet in one temporary file, and no link waits at a name that is known."""
    path, names = tmp_path / "a.json", set()
    for _ in range(20):
        with files.replacing(path):
            names |= {one.name for one in tmp_path.iterdir() if one != path}
    assert len(names) == 20


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "a.json"
    elsewhere.write_text("precious")
    path.symlink_to(elsewhere)
    (tmp_path / "a.json.tmp").symlink_to(elsewhere)
    files.write_text(path, "new")
    assert (elsewhere.read_text(), path.read_text(), path.is_symlink()) == ("precious", "new", False)


def test_appending_refuses_a_link(tmp_path):
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "log"
    elsewhere.write_text("precious")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="log"):
        files.appending(path)
    path.unlink()
    for text in ("a\n", "≤\n"):
        with files.appending(path) as file:
            file.write(text)
    assert (elsewhere.read_text(), path.read_text(encoding="utf-8")) == ("precious", "a\n≤\n")


def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "nul", "NaN", "-Infinity", "[1e999]", '{"a": 1, "a": 2}', "[" * 65 + "]" * 65, "[" * 10**5),
        *("18446744073709551616", "9" * 5000, "\u0661", "[1] [2]", "\ud800"),
    ],
)
def test_json_that_this_package_does_not_write_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 (of many kinds)
        files.parse_json(text.encode(errors="surrogatepass"))


def test_json_is_read_as_it_was_written(tmp_path):
    value = {"a": [1, -2.5, None, True, "≤"], "b": {}, "c": 2**64 - 1, "deep": json.loads("[" * 60 + "]" * 60)}
    files.write_text(tmp_path / "a.json", json.dumps(value))
    assert files.read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="more than 10 bytes"):
        files.read_json(tmp_path / "a.json", most_bytes=10)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "b.json")


def test_a_long_name_is_written(tmp_path):
    path = tmp_path / ("n" * 250)
    with files.replacing(path) as file:
        file.write(io.BytesIO(b"x").read())
    assert path.read_text() == "x"
