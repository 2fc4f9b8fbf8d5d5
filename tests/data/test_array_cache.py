"""The cache of decoded arrays: an entry is used only if it is complete, and a failure never stops a run."""

import json

import numpy as np
import pytest

from gm_jax.data import array_cache
from gm_jax.hashing import array_digest

SPLITS = {
    "train": {"x": np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1), "label": np.arange(6, dtype=np.int32)},
    "test": {"x": np.zeros((1, 2, 2, 1), np.uint8), "label": np.zeros(1, np.int32)},
}
FACTS = {"levels": 256, "num_classes": None}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gm_jax"


def assert_is_what_was_written(cached):
    splits, facts, digests = cached
    assert digests == {s: {name: array_digest(array) for name, array in a.items()} for s, a in SPLITS.items()}
    assert facts == FACTS
    assert {split: list(arrays) for split, arrays in splits.items()} == {s: list(a) for s, a in SPLITS.items()}
    for split, arrays in SPLITS.items():
        for name, array in arrays.items():
            assert splits[split][name].dtype == array.dtype
            np.testing.assert_array_equal(splits[split][name], array)


def test_an_entry_is_read_as_it_was_written(root):
    assert array_cache.read("entry") is None
    array_cache.write("entry", SPLITS, FACTS)
    assert_is_what_was_written(array_cache.read("entry"))
    assert [child.name for child in root.iterdir()] == ["entry"]


@pytest.mark.parametrize(
    "damage", ["flip", "truncate", "remove", "no manifest", "empty manifest", "other array", "other facts"]
)
def test_a_damaged_entry_is_not_used_and_is_replaced(root, damage):
    array_cache.write("entry", SPLITS, FACTS)
    file, manifest = root / "entry" / "train.x.npy", root / "entry" / "manifest.json"
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        file.write_bytes(content[:-3])
    elif damage == "remove":
        file.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "empty manifest":
        manifest.write_text(json.dumps([]))
    elif damage == "other facts":
        manifest.write_text(manifest.read_text().replace("256,", "2,"))
    else:
        np.save(file, SPLITS["train"]["x"].reshape(6, 4))
    assert array_cache.read("entry") is None
    array_cache.write("entry", SPLITS, FACTS)
    assert_is_what_was_written(array_cache.read("entry"))


def test_an_entry_of_a_version_that_hashed_no_facts_is_used(root):
    array_cache.write("entry", SPLITS, FACTS)
    manifest = root / "entry" / "manifest.json"
    kept = json.loads(manifest.read_text())
    del kept["sha256"]
    manifest.write_text(json.dumps(kept))
    assert_is_what_was_written(array_cache.read("entry"))


def test_a_cache_that_cannot_be_written_is_silently_skipped(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder below a file: fails for root too
    array_cache.write("entry", SPLITS, FACTS)
    assert array_cache.read("entry") is None
    assert capfd.readouterr() == ("", "")


def test_a_write_that_fails_half_way_leaves_no_files_and_says_so(root, monkeypatch, caplog):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    array_cache.write("entry", SPLITS, FACTS)
    assert list(root.iterdir()) == []
    assert caplog.messages == [f"the disk of {root} is full: the decoded data are not kept for the next run"]


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_the_default_is_the_cache_folder_of_the_home(value, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    array_cache.write("entry", SPLITS, FACTS)
    assert (tmp_path / ".cache" / "gm_jax" / "entry" / "manifest.json").is_file()
