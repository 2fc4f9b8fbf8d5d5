"""Files are written whole or not at all."""

import pathlib

import pytest

from gm_jax import files


def test_a_file_is_replaced_by_one_rename_and_no_temporary_file_stays(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first", "second, longer"):
        files.write_text(path, text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_text(path, "old")

    def tear(self, text):
        self.write_bytes(text[:1].encode())
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "write_text", tear)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
