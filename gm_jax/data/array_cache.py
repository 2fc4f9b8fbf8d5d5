"""A cache of decoded arrays: .npy files under $XDG_CACHE_HOME/gm_jax (default ~/.cache/gm_jax).

An entry is a folder: one .npy per array, and `manifest.json` with each array's SHA-256, other facts, and the SHA-256 of
these. It appears by one rename, so no reader sees a part of it. Facts, and arrays that are read into memory, are used
only if their hashes match; a manifest of an earlier version has no hash of its facts. The cache is a convenience for
data that fit into memory: if it cannot be read or written, they are decoded again without a message.

Images of more than `memory.MOST_IN_MEMORY` bytes are written row by row (`Writer`) and stay on disk (`mapped_arrays`).
Hashing 20 GB would take a minute, so a file of images is not hashed if its size and time of change are its stamp in the
manifest: damage that changes neither is not found. Any other file is hashed, and gets a new stamp if its hash matches.

A process that is killed leaves the folder `.building-HOST-PID-*` of what it was writing. The next process on the same
host that writes an entry removes it; folders of other hosts are left alone, because their processes cannot be seen.
"""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gm_jax import signals
from gm_jax.data import mapped_arrays, memory
from gm_jax.files import cache_home, read_json, sync_folder, sync_tree, write_text
from gm_jax.hashing import array_digest, begun_array_digest, json_digest

Splits = dict[str, dict[str, np.ndarray]]  # "train" -> {"x": [N, ...], "label": [N]}
Digests = dict[str, dict[str, str]]  # the same keys -> SHA-256 of the array

_BUILDING = ".building-"  # of the folders of entries that are being written
_PART = 2**24  # bytes that are hashed or changed at once
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOG = logging.getLogger("gm_jax")


class Stored(NamedTuple):
    """An entry: its arrays, its facts, and the hashes of its arrays."""

    splits: Splits
    facts: dict[str, Any]
    digests: Digests


def read(entry: str) -> Stored | None:
    """Reads an entry and verifies it; large images are mapped.

    Args:
        entry: the name of the entry's folder.
    Returns:
        The entry as written, or None if there is none or it is damaged.
    """
    root = cache_home()
    if root is None:
        return None
    try:
        manifest = read_json(_regular(root / entry / "manifest.json"))
        if manifest.get("sha256") not in (None, _digest(manifest["arrays"], manifest["facts"])):
            return None
        files = [root / entry / _file_name(record["split"], record["name"]) for record in manifest["arrays"]]
        images = [file for file, record in zip(files, manifest["arrays"], strict=True) if record["name"] == "x"]
        is_large = sum(map(_num_bytes, images)) > memory.MOST_IN_MEMORY
        splits: Splits = {}
        digests: Digests = {}
        stamps = [record.get("stamp") for record in manifest["arrays"]]
        for record, file in zip(manifest["arrays"], files, strict=True):
            array = _verified(file, record, mapped=is_large and record["name"] == "x")
            if array is None:
                return None
            splits.setdefault(record["split"], {})[record["name"]] = array
            digests.setdefault(record["split"], {})[record["name"]] = record["sha256"]
        if stamps != [record.get("stamp") for record in manifest["arrays"]]:
            with contextlib.suppress(OSError):  # of a cache that may only be read: hashed again by the next process
                write_text(root / entry / "manifest.json", json.dumps(manifest, indent=1))
        return Stored(splits, manifest["facts"], digests)
    except Exception:  # the readers of JSON and numpy raise many types for damaged bytes
        return None


def _num_bytes(file: Path) -> int:
    """Returns the bytes of an array, without its header."""
    with _regular(file).open("rb") as stream:
        shape, dtype, _ = mapped_arrays.read_header(stream)
    return math.prod(shape) * dtype.itemsize


def _verified(file: Path, record: dict[str, Any], *, mapped: bool) -> np.ndarray | None:
    """Opens an array; None if it is not the one that was written. Renews the stamp of a mapped one that was hashed."""
    if not mapped:
        array = np.load(_regular(file), allow_pickle=False)
        return array if array_digest(array) == record["sha256"] else None
    array = mapped_arrays.open_array(file)
    stamp = _stamp(file)
    if record.get("stamp") == stamp:
        return array
    with file.open("rb") as stream:
        shape, dtype, _ = mapped_arrays.read_header(stream)
        digest = begun_array_digest(dtype, shape)
        for part in _parts(stream):
            digest.update(part)
    if digest.hexdigest() != record["sha256"]:
        return None
    record["stamp"] = stamp  # from before the hash: what changes the file meanwhile is seen by the next process
    return array


def write(entry: str, splits: Splits, facts: Mapping[str, Any]) -> None:
    """Writes an entry; it replaces a damaged one.

    Args:
        entry: the name of the entry's folder.
        splits: the arrays.
        facts: other facts to keep, JSON values.
    """
    root = cache_home()
    if root is None:
        return
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_leftovers(root)
        with building(root) as folder:
            digests = {}
            for split, arrays in splits.items():
                for name, array in arrays.items():
                    np.save(folder / _file_name(split, name), array, allow_pickle=False)
                    digests[split, name] = array_digest(array)
            _publish(folder, root / entry, digests, facts)
    except OSError as error:
        if error.errno in _FULL:
            _LOG.warning("the disk of %s is full: the decoded data are not kept for the next run", root)


def remove(entry: str) -> None:
    """Removes an entry that `read` has refused, so that its space is free; call it while `alone`."""
    root = cache_home()
    if root is not None:
        _discard(root / entry)


class Writer:
    """The files of an entry that is written row by row, each array in the order of its rows."""

    def __init__(self, folder: Path, shapes: Mapping[str, Mapping[str, tuple[tuple[int, ...], np.dtype]]]):
        self._folder, self._open = folder, contextlib.ExitStack()
        self._files: dict[tuple[str, str], BinaryIO] = {}
        self._digests = {}
        for split, arrays in shapes.items():
            for name, (shape, dtype) in arrays.items():
                file = self._open.enter_context((folder / _file_name(split, name)).open("xb", buffering=2**20))
                mapped_arrays.write_header(file, shape, dtype)
                self._files[split, name] = file
                self._digests[split, name] = begun_array_digest(dtype, shape)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which `append` has reported
            self._open.close()

    def append(self, split: str, name: str, row: np.ndarray) -> None:
        """Writes the next row of an array.

        Raises:
            OSError: the disk failed or is full.
        """
        data = row.tobytes()
        self._files[split, name].write(data)
        self._digests[split, name].update(data)

    def change(self, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Changes every uint8 of the arrays of a name, in all splits, after the last row."""
        for (split, of), file in self._files.items():
            if of != name:
                continue
            file.flush()
            with (self._folder / _file_name(split, name)).open("r+b") as again:
                shape, dtype, _ = mapped_arrays.read_header(again)
                digest = self._digests[split, name] = begun_array_digest(dtype, shape)
                for part in _parts(again):
                    changed = change(np.frombuffer(part, np.uint8)).tobytes()
                    again.seek(-len(part), os.SEEK_CUR)
                    again.write(changed)
                    digest.update(changed)

    def finish(self, entry: Path, facts: Mapping[str, Any]) -> None:
        """Closes the files, and makes the folder the entry: from here on it is whole, also after a power cut."""
        self._open.close()
        _publish(self._folder, entry, {key: digest.hexdigest() for key, digest in self._digests.items()}, facts)


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Waits until no other process of this host decodes large data, and removes what killed ones have left.

    Raises:
        OSError: the cache cannot be made or opened.
        KeyboardInterrupt: a signal came while another process was waited for.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _wait_for(lock, root)
        _remove_leftovers(root)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def building(root: Path) -> Iterator[Path]:
    """Makes a new folder in the cache, which is removed at the end unless it became an entry.

    Its name has this host and process, and it is locked for as long as it is written, so that others leave it alone.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{os.uname().nodename}-{os.getpid()}-", dir=root))
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    for folder in root.glob(f"{_BUILDING}*-*-*"):
        owner, pid, _ = folder.name.rsplit("-", 2)
        # The locks of another host may not be seen here, although those of this one are.
        if owner == f"{_BUILDING}{os.uname().nodename}" and not _is_written(folder, pid):
            shutil.rmtree(folder, ignore_errors=True)


def _is_written(folder: Path, pid: str) -> bool:
    """Returns whether a process of this host still writes a folder."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True  # another user's, gone, or not a folder: opening a pipe would block
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here
        return not pid.isdecimal() or Path(f"/proc/{pid}").exists() or not Path("/proc/self").exists()
    else:
        return False
    finally:
        os.close(lock)


def _wait_for(lock: int, root: Path) -> None:
    """Waits until no other process decodes; on a file system without locks it does not wait."""
    warned = False
    while True:
        signals.check()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not warned:
                _LOG.warning("waiting for another process, which decodes data into %s", root)
            warned = True
            time.sleep(0.2)
        except OSError:
            return
        else:
            return


def _publish(folder: Path, entry: Path, digests: Mapping[tuple[str, str], str], facts: Mapping[str, Any]) -> None:
    records = [
        {"split": split, "name": name, "sha256": digest, "stamp": _stamp(folder / _file_name(split, name))}
        for (split, name), digest in digests.items()
    ]
    manifest = {"arrays": records, "facts": facts, "sha256": _digest(records, facts)}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    sync_tree(folder)
    # `read` has refused the entry, so an existing folder is damaged, or an equal copy of another process.
    _discard(entry)
    folder.rename(entry)
    sync_folder(entry.parent)


def _digest(records: list[dict[str, Any]], facts: Mapping[str, Any]) -> str:
    """Hashes the facts, and which arrays there are; not the stamps, which readers renew."""
    return json_digest([facts, [[record["split"], record["name"], record["sha256"]] for record in records]])


def _discard(entry: Path) -> None:
    """Removes an entry, or what has its name: a link stays unfollowed, and a pipe, which would block, unopened."""
    if entry.is_symlink() or not entry.is_dir():
        with contextlib.suppress(OSError):
            entry.unlink()
    else:
        shutil.rmtree(entry, ignore_errors=True)


def _stamp(file: Path) -> list[int]:
    """Returns what changes with a file's content: its size and the time of its last change, in nanoseconds."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _parts(stream: BinaryIO) -> Iterator[bytes]:
    while part := stream.read(_PART):
        signals.check()
        yield part


def _regular(file: Path) -> Path:
    """Refuses a pipe, which would block."""
    if not file.is_file():
        raise FileNotFoundError(file)
    return file


def _file_name(split: str, name: str) -> str:
    return f"{split}.{name}.npy"
