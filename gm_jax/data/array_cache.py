"""A cache of decoded arrays: .npy files under $XDG_CACHE_HOME/gm_jax (default ~/.cache/gm_jax).

An entry is a folder: one .npy per array, and `manifest.json` with each array's SHA-256 and other facts. It appears by
one rename, so no reader sees a part of it, and it is used only if its hashes match. The cache is a convenience for
data that fit into memory: if it cannot be read or written, they are decoded again without a message.

Images of more than `memory.MOST_IN_MEMORY` bytes are written row by row (`Writer`) and stay on disk (`mapped_arrays`).
Reading all of them to compare their hashes would take a minute for 20 GB, so a file whose size and time of change are
those that the manifest has from the time of writing keeps its hash; any other is hashed again.
"""

import contextlib
import errno
import fcntl
import json
import logging
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
from gm_jax.files import cache_home, read_json, sync_folder, sync_tree
from gm_jax.hashing import array_digest, begun_array_digest

Splits = dict[str, dict[str, np.ndarray]]  # "train" -> {"x": [N, ...], "label": [N]}
Digests = dict[str, dict[str, str]]  # the same keys -> SHA-256 of the array

_BUILDING = ".building-"  # of the folders of entries that are being written row by row
_PART = 2**24  # bytes that are hashed or changed at once
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOG = logging.getLogger("gm_jax")


class Stored(NamedTuple):
    """An entry: its arrays, its facts, and the hashes of its arrays."""

    splits: Splits
    facts: dict[str, Any]
    digests: Digests


def read(entry: str) -> Stored | None:
    """Reads an entry and verifies its hashes; large images are mapped.

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
        files = [root / entry / _file_name(record["split"], record["name"]) for record in manifest["arrays"]]
        is_large = sum(_regular(file).stat().st_size for file in files) > memory.MOST_IN_MEMORY
        splits: Splits = {}
        digests: Digests = {}
        for record, file in zip(manifest["arrays"], files, strict=True):
            array = _verified(file, record, mapped=is_large and record["name"] == "x")
            if array is None:
                return None
            splits.setdefault(record["split"], {})[record["name"]] = array
            digests.setdefault(record["split"], {})[record["name"]] = record["sha256"]
        return Stored(splits, manifest["facts"], digests)
    except Exception:  # the readers of JSON and numpy raise many types for damaged bytes
        return None


def _verified(file: Path, record: Mapping[str, Any], *, mapped: bool) -> np.ndarray | None:
    """Opens an array; None if it is not the one that was written."""
    if not mapped:
        array = np.load(file, allow_pickle=False)
        return array if array_digest(array) == record["sha256"] else None
    array = mapped_arrays.open_array(file)
    if record.get("stamp") == _stamp(file):
        return array
    with file.open("rb") as stream:
        shape, dtype, _ = mapped_arrays.read_header(stream)
        digest = begun_array_digest(dtype, shape)
        for part in _parts(stream):
            digest.update(part)
    return array if digest.hexdigest() == record["sha256"] else None


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
    building = None
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{entry}.", dir=root))
        records = []
        for split, arrays in splits.items():
            for name, array in arrays.items():
                np.save(building / _file_name(split, name), array, allow_pickle=False)
                records.append({"split": split, "name": name, "sha256": array_digest(array)})
        _publish(building, root / entry, records, facts)
    except OSError as error:
        if error.errno in _FULL:
            _LOG.warning("the disk of %s is full: the decoded data are not kept for the next run", root)
        if building is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(building)


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
        records = [
            {"split": split, "name": name, "sha256": digest.hexdigest(), "stamp": _stamp(file)}
            for (split, name), digest in self._digests.items()
            for file in [self._folder / _file_name(split, name)]
        ]
        _publish(self._folder, entry, records, facts)


@contextlib.contextmanager
def building(root: Path) -> Iterator[Path]:
    """Makes a new folder in the cache for a `Writer`; one process at a time, which removes what killed ones have left.

    Raises:
        OSError: the folder cannot be made.
        KeyboardInterrupt: a signal came while another process was waited for.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _waited_for(lock, root):
            for left in root.glob(f"{_BUILDING}*"):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # unless it became the entry
    finally:
        os.close(lock)


def _waited_for(lock: int, root: Path) -> bool:
    """Waits until no other process decodes; returns False on a file system without locks, without waiting."""
    told = False
    while True:
        signals.check()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                _LOG.warning("waiting for another process, which decodes data into %s", root)
            told = True
            time.sleep(0.2)
        except OSError:
            return False
        else:
            return True


def _publish(folder: Path, entry: Path, records: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps({"arrays": records, "facts": facts}, indent=1))
    sync_tree(folder)
    # `read` has refused the entry, so an existing folder is damaged, or an equal copy of another process.
    shutil.rmtree(entry, ignore_errors=True)
    folder.rename(entry)
    sync_folder(entry.parent)


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
