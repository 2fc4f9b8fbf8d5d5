"""Data that do not fit into memory: decoded onto the disk and mapped, with the arrays that memory would hold."""

import errno
import fcntl
import os
import resource
import shutil
import threading

import numpy as np
import PIL.Image
import pytest

from gm_jax.data import array_cache, mapped_arrays, memory, sources, split_writer, tfds_sources
from gm_jax.data.splits import SPLITS
from gm_jax.errors import UserError
from gm_jax.hashing import array_digest
from tests.data.tfds_examples import examples, png, prepare


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The cache's folder, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gm_jax"


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100)


def photographs(folder, num=30, values=None):
    rng = np.random.default_rng(0)
    for number in range(num):
        pixels = rng.integers(0, 256, (4, 5, 3)) if values is None else rng.choice(values, (4, 5))
        file = folder / str(number % 3) / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(PIL.Image.fromarray(pixels.astype(np.uint8))))
    return f"folder:{folder}"


def prepared(shipped):
    def make(folder, values=None):
        sets = {
            "train": examples(30, values=values),
            "test": examples(7, 1, values),
            "validation": examples(4, 2, values),
        }
        prepare(folder, {split: sets[split] for split in shipped})
        return "tiny"

    return make


KINDS = {
    "a folder": photographs,
    "all splits": prepared(SPLITS),
    "no validation": prepared(("train", "test")),
    "train alone": prepared(("train",)),
}


def assert_same(found, expected):
    assert found.spec == expected.spec
    assert list(found.splits) == list(expected.splits)
    for split, arrays in expected.splits.items():
        assert list(found.splits[split]) == list(arrays)
        for name, array in arrays.items():
            assert found.splits[split][name].dtype == array.dtype
            np.testing.assert_array_equal(found.splits[split][name], array)


def in_memory(found):
    """Returns a source whose arrays do not follow changes of their files."""
    return found._replace(
        splits={s: {name: np.array(array) for name, array in arrays.items()} for s, arrays in found.splits.items()}
    )


@pytest.mark.parametrize("values", [None, [0, 255], [0, 1]])
@pytest.mark.parametrize("kind", KINDS)
def test_large_data_are_those_that_memory_would_hold_but_stay_on_disk(kind, values, tmp_path, root, monkeypatch):
    name = KINDS[kind](tmp_path / "data", values=values)
    data_dir = None if kind == "a folder" else str(tmp_path / "data")
    expected = sources.load(name, data_dir)
    assert expected.spec.levels == (256 if values is None else 2)
    shutil.rmtree(root)
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100)
    for again in range(2):  # decoded, then from the cache
        on_disk = sources.load(name, data_dir)
        assert_same(on_disk, expected)
        assert all(mapped_arrays.is_mapped(arrays["x"]) for arrays in on_disk.splits.values()), again
        assert [child.stat().st_mode & 0o777 for child in root.iterdir()] == [0o700]
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 2**30)  # an entry serves memory and disk alike
    assert_same(sources.load(name, data_dir), expected)


def test_the_second_load_decodes_nothing_and_hashes_nothing(tmp_path, large, monkeypatch):
    prepare(tmp_path, {"train": examples(30)})
    first = sources.load("tiny", str(tmp_path))
    monkeypatch.setattr(tfds_sources, "decode_split", None)
    monkeypatch.setattr(array_cache, "_parts", None)
    hashed = []
    monkeypatch.setattr(array_cache, "array_digest", lambda array: hashed.append(array.ndim) or array_digest(array))
    assert_same(sources.load("tiny", str(tmp_path)), first)
    assert hashed == [1, 1, 1]  # the labels


@pytest.mark.parametrize("how", ["copied", "written at once", "read-only"])
def test_an_entry_that_was_written_otherwise_is_hashed_at_most_once(tmp_path, root, monkeypatch, how):
    prepare(tmp_path, {"train": examples(30)})
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 2**30 if how == "written at once" else 100)
    first = in_memory(sources.load("tiny", str(tmp_path)))
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100)
    (entry,) = root.iterdir()
    if how != "written at once":
        for file in entry.glob("*.npy"):
            os.utime(file, ns=(0, 0))
    if how == "read-only":

        def refused(*_):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(array_cache, "write_text", refused)
    hashed, parts = [], array_cache._parts
    monkeypatch.setattr(array_cache, "_parts", lambda stream: hashed.append(1) or parts(stream))
    counts = []
    for _ in range(3):
        assert_same(sources.load("tiny", str(tmp_path)), first)
        counts.append(len(hashed))
    assert counts == {"copied": [3, 3, 3], "written at once": [0, 0, 0], "read-only": [3, 6, 9]}[how]


@pytest.mark.parametrize("more", [0, 1])
def test_the_images_alone_are_counted_whether_written_or_read(tmp_path, monkeypatch, more):
    name = photographs(tmp_path / "data")
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 30 * 4 * 5 * 3 - more)
    for _ in range(2):
        assert mapped_arrays.is_mapped(sources.load(name).splits["train"]["x"]) == bool(more)


@pytest.mark.parametrize("damage", ["flip", "short", "link", "no manifest", "touch"])
def test_a_damaged_entry_is_decoded_again(tmp_path, root, large, damage, monkeypatch):
    prepare(tmp_path, {"train": examples(30)})
    first = in_memory(sources.load("tiny", str(tmp_path)))
    (entry,) = root.iterdir()
    file = entry / "train.x.npy"
    content = file.read_bytes()
    os.utime(file, ns=(0, 0))
    if damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "short":
        file.write_bytes(content[:-1])
    elif damage == "link":
        file.rename(tmp_path / "moved.npy")
        file.symlink_to(tmp_path / "moved.npy")
    elif damage == "no manifest":
        (entry / "manifest.json").unlink()
    decoded = []
    decode = tfds_sources.decode_split
    monkeypatch.setattr(tfds_sources, "decode_split", lambda *args: decoded.append(1) or decode(*args))
    assert_same(sources.load("tiny", str(tmp_path)), first)
    assert decoded == ([] if damage == "touch" else [1])


@pytest.mark.parametrize("other", ["file", "pipe", "link to a folder", "link to nothing", "link to itself"])
@pytest.mark.parametrize("is_large", [True, False])
def test_what_has_the_name_of_an_entry_is_replaced(tmp_path, root, monkeypatch, is_large, other):
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100 if is_large else 2**30)
    name = photographs(tmp_path / "data")
    first = in_memory(sources.load(name))
    (entry,) = root.iterdir()
    shutil.rmtree(entry)
    if other == "file":
        entry.write_text("")
    elif other == "pipe":
        os.mkfifo(entry)
    else:
        target = {"link to a folder": tmp_path / "data", "link to nothing": tmp_path / "no", "link to itself": entry}
        entry.symlink_to(target[other])
    assert_same(sources.load(name), first)
    assert not entry.is_symlink()
    assert array_cache.read(entry.name) is not None
    assert len(list((tmp_path / "data").rglob("*.png"))) == 30


@pytest.mark.parametrize("is_large", [True, False])
def test_a_pipe_or_link_with_the_name_of_a_leftover_is_left_alone(tmp_path, root, monkeypatch, is_large):
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100 if is_large else 2**30)
    root.mkdir(parents=True)
    name = photographs(tmp_path / "data")
    prefix = f".building-{os.uname().nodename}-{2**22 + 1}"
    os.mkfifo(root / f"{prefix}-pipe")
    (root / f"{prefix}-link").symlink_to(tmp_path / "data")
    sources.load(name)
    assert {path.name for path in root.glob(".building-*")} == {f"{prefix}-pipe", f"{prefix}-link"}
    assert len(list((tmp_path / "data").rglob("*.png"))) == 30


def test_changed_sources_are_decoded_again(tmp_path, large):
    name = photographs(tmp_path / "data")
    first = sources.load(name)
    (tmp_path / "data" / "0" / "00.png").write_bytes(png(np.full((4, 5, 3), 7, np.uint8)))
    assert sources.load(name).spec.fingerprint != first.spec.fingerprint


def test_a_damaged_image_leaves_nothing_and_other_entries_stay(tmp_path, root, large):
    kept = photographs(tmp_path / "kept")
    sources.load(kept)
    before = list(root.iterdir())
    name = photographs(tmp_path / "data")
    (tmp_path / "data" / "2" / "29.png").write_bytes(png(np.zeros((4, 5, 3), np.uint8))[:-20])
    with pytest.raises(UserError, match=r"29\.png cannot be decoded"):
        sources.load(name)
    assert list(root.iterdir()) == before


def leftover(root, host=None, pid=2**22 + 1, num_bytes=4):
    """Makes what a killed process has left; no process has this number."""
    folder = root / f".building-{host or os.uname().nodename}-{pid}-abc_1234"
    folder.mkdir(parents=True)
    (folder / "train.x.npy").write_bytes(b"h" * num_bytes)
    return folder


@pytest.mark.parametrize("is_large", [True, False])
def test_what_a_killed_process_of_this_host_left_is_not_used_and_is_removed(tmp_path, root, is_large, monkeypatch):
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100 if is_large else 2**30)
    left = leftover(root)
    (root / "other-entry").mkdir()
    sources.load(photographs(tmp_path / "data"))
    assert not left.exists()
    assert (root / "other-entry").exists()


def test_what_others_may_still_write_stays(tmp_path, root, large):
    """The locks of another host may not be seen here; those of this one are."""
    others = [leftover(root, "elsewhere"), leftover(root, f"x-{os.uname().nodename}"), root / ".building-without"]
    others[-1].mkdir()
    with array_cache.building(root) as written:
        sources.load(photographs(tmp_path / "data"))
        assert all(folder.exists() for folder in (*others, written))
    assert not written.exists()


@pytest.mark.parametrize("writes", [True, False])
def test_without_locks_the_number_of_a_process_tells_whether_it_lives(tmp_path, root, large, monkeypatch, writes):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    left = leftover(root, pid=os.getpid() if writes else 2**22 + 1)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    sources.load(photographs(tmp_path / "data"))
    assert left.exists() == writes


def disk_of(num_bytes, root, monkeypatch):
    """Makes a disk on which only the cache has files."""
    usage = shutil.disk_usage("/")

    def measure(_):
        used = sum(file.stat().st_size for file in root.rglob("*.npy"))
        return usage._replace(free=num_bytes - used)

    monkeypatch.setattr(shutil, "disk_usage", measure)
    monkeypatch.setattr(memory, "physical", lambda: 0)  # and the memory holds nothing


def test_the_room_is_measured_without_what_killed_processes_left(tmp_path, root, large, monkeypatch):
    leftover(root, num_bytes=2500)
    disk_of(3000, root, monkeypatch)
    assert mapped_arrays.is_mapped(sources.load(photographs(tmp_path / "data")).splits["train"]["x"])


@pytest.mark.parametrize("more", [0, 1])
def test_a_disk_of_just_the_images_has_no_room_for_the_rest(tmp_path, root, large, monkeypatch, more):
    disk_of(30 * 4 * 5 * 3 + more, root, monkeypatch)
    name = photographs(tmp_path / "data")
    if more:
        assert mapped_arrays.is_mapped(sources.load(name).splits["train"]["x"])
    else:
        with pytest.raises(UserError, match="or name a larger disk by XDG_CACHE_HOME"):
            sources.load(name)


@pytest.mark.parametrize("damage", ["a manifest", "an array"])
def test_the_room_is_measured_without_the_damaged_entry(tmp_path, root, large, monkeypatch, damage):
    name = photographs(tmp_path / "data")
    first = in_memory(sources.load(name))
    (entry,) = root.iterdir()
    if damage == "a manifest":
        (entry / "manifest.json").write_text("{")
    else:
        os.truncate(entry / "train.x.npy", 1000)
    disk_of(3000, root, monkeypatch)
    assert_same(sources.load(name), first)


@pytest.mark.parametrize("moment", ["append", "finish"])
def test_a_disk_that_fills_up_is_an_error_of_one_line_and_leaves_nothing(tmp_path, root, large, monkeypatch, moment):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_cache.Writer, moment, full)
    name = photographs(tmp_path / "data")
    with pytest.raises(UserError) as caught:
        sources.load(name)
    assert str(caught.value) == (
        f"The 30 examples of {tmp_path / 'data'} cannot be kept in {root} (No space left on device): free 1.68e-06 GB "
        "there, or name a larger disk by XDG_CACHE_HOME."
    )
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("num", [20, 400])
def test_a_disk_that_is_full_while_the_rest_waits_in_a_buffer_is_the_same_error(root, large, num):
    """What the buffers still hold is written again when the files are closed, and fails again."""
    plan = split_writer.Plan("entry", (100, 100, 1), np.zeros(num, np.uint8), False, {}, "here")
    image = np.full((100, 100, 1), 9, np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num * 5_000, hard))
    try:
        with pytest.raises(UserError, match=rf"The {num} examples of here cannot be kept in {root} \(File too large\)"):
            split_writer.write(plan, ((image, None) for _ in range(num)), lambda *_: True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(root.iterdir()) == []


def test_without_room_on_disk_memory_is_used_if_it_suffices(tmp_path, root, large, monkeypatch, caplog):
    name = photographs(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    found = sources.load(name)
    assert not mapped_arrays.is_mapped(found.splits["train"]["x"])
    assert list(root.iterdir()) == []  # the full disk is not written to
    assert "has no room: images of 1.68e-06 GB are read into memory" in caplog.text
    monkeypatch.setattr(memory, "physical", lambda: 3000)
    with pytest.raises(UserError) as caught:
        sources.load(name)
    assert str(caught.value).startswith(f"The 30 examples of {tmp_path / 'data'} need 1.68e-06 GB; ")
    assert "or name a larger disk by XDG_CACHE_HOME" in str(caught.value)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("refused", [False, True])
def test_a_cache_of_another_user_is_said_to_be_closed_and_not_full(tmp_path, root, large, monkeypatch, caplog, refused):
    monkeypatch.setattr(os, "access", lambda *_: False)
    name = photographs(tmp_path / "data")
    if refused:
        monkeypatch.setattr(memory, "physical", lambda: 3000)
        with pytest.raises(UserError, match=f"{root} cannot be written to, and this machine has 2.79e-06 GB of mem"):
            sources.load(name)
    else:
        sources.load(name)
        assert f"{root} cannot be written to: images of 1.68e-06 GB are read into memory" in caplog.text


def test_a_cache_that_cannot_be_written_leaves_memory(tmp_path, large, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(sources.load(photographs(tmp_path / "data")).splits["train"]["x"]) == 24


@pytest.mark.parametrize("is_full", [False, True])
def test_one_of_two_processes_decodes_and_the_other_waits_for_it(root, large, caplog, monkeypatch, is_full):
    """A lock belongs to an open file, so that a thread stands for a process."""
    split_of = np.repeat(np.arange(3, dtype=np.uint8), 10)
    plan = split_writer.Plan("entry", (4, 5, 3), split_of, False, {}, "here")
    image = np.full((4, 5, 3), 9, np.uint8)
    decoding, go, found = threading.Event(), threading.Event(), []

    def slowly():
        for _ in split_of:
            decoding.set()
            assert go.wait(60)
            yield image, None

    first = threading.Thread(target=lambda: found.append(split_writer.write(plan, slowly(), lambda *_: True)))
    first.start()
    assert decoding.wait(60)
    if is_full:  # of what the first one writes
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
        monkeypatch.setattr(memory, "physical", lambda: 0)
    threading.Timer(0.5, go.set).start()
    second = split_writer.write(plan, iter([]), lambda *_: True)  # has nothing to decode
    first.join()
    assert "waiting for another process" in caplog.text
    for stored in (*found, second):
        np.testing.assert_array_equal(stored.splits["test"]["x"], np.tile(image, (10, 1, 1, 1)))
    assert [child.name for child in root.iterdir()] == ["entry"]
