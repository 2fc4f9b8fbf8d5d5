"""Where jax keeps compiled programs between commands, set before jax starts: resuming compiles nothing a second time.

The folder is ~/.cache/gm_jax/programs/, or below $XDG_CACHE_HOME. An entry is machine code that a later command runs:
the folder is the user's own (0700), below folders into which nobody else may write, and never a part of a run's folder
or of a data folder. Programs of another
processor, or compiled for another number of cores, lie in another folder, because jax's key knows neither.

JAX_COMPILATION_CACHE_DIR names another folder, and turns the cache off if it is empty.
"""

import contextlib
import logging
import os
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from gm_jax import files
from gm_jax.runner import hardware

_LOG = logging.getLogger(__name__)

_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SETTINGS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}  # by default only programs that take a second
_MOST_BYTES = 2**31  # of all entries of one kind of machine, at a start; the oldest go first
_LEAST_FREE = 2**28  # bytes on the disk: a full one is left to the checkpoints
_CHECKED = ".checked"  # a file whose time is that of the last look at the entries


def set_default(environ: MutableMapping[str, str]) -> None:
    """Makes jax keep compiled programs in the user's cache, unless the environment says where.

    A folder that cannot be used is a warning.
    """
    if "jax" in sys.modules:
        return  # it has read its settings
    if environ.get(_FOLDER) == "":
        del environ[_FOLDER]  # for jax this would be the current folder
        return
    if _FOLDER in environ or environ.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower() in ("false", "0"):
        return
    root = files.cache_home(environ)
    if root is None:
        return
    folder = root / "programs" / _machine(environ)
    try:
        _make_private(folder)
        reason = _why_not(folder)
        if reason is None:
            _remove_damaged(folder)
            _remove_oldest(folder, _MOST_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is not None:
        _LOG.warning(f"compiled programs are not kept for the next command: {reason}: {folder}")
        return
    environ[_FOLDER] = str(folder)
    for name, value in _SETTINGS.items():
        environ.setdefault(name, value)


def _machine(environ: Mapping[str, str]) -> str:
    """Names the processor's instructions and the number of cores that a program may be divided among."""
    cores = environ.get("NPROC", "")  # if set, XLA's own number
    return f"{hardware.instructions()}-{cores if cores.isdecimal() else hardware.num_cores()}"


def _make_private(folder: Path) -> None:
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)


def _why_not(folder: Path) -> str | None:
    """Returns why the entries of a folder may not be run, or none can be added; None if all is well."""
    for one in (folder.parent, folder):
        found = one.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return "the folder belongs to somebody else, or is a link"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "others may write into the folder"  # and may have done so
        one.chmod(0o700)
    for one in folder.resolve().parents:  # who may write into one of them may put another folder in this one's place
        found = one.stat()
        is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        if is_shared or found.st_uid not in (0, os.getuid()):
            return f"others may write into {one}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "the folder is not writable"
    if shutil.disk_usage(folder).free < _LEAST_FREE:
        return "the disk is almost full"
    return None


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the programs in a folder; XLA keeps folders of its own there, and another command may remove an entry."""
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):
            found = entry.lstat()
            if stat.S_ISREG(found.st_mode):
                yield entry, found


def _remove_damaged(folder: Path) -> None:
    """Removes entries that a killed command or a full disk has left half written; looks at those that are new.

    jax writes an entry in place, never writes it again, and would warn of it at every start.
    """
    checked, now = folder / _CHECKED, time.time()
    last = checked.stat().st_mtime if checked.exists() else 0.0
    for entry, found in _entries(folder):
        if found.st_uid != os.getuid() or (found.st_mtime >= last and not _is_whole(entry)):
            entry.unlink(missing_ok=True)
    checked.touch()
    os.utime(checked, (now, now))  # an entry that was begun since then is looked at again


def _is_whole(entry: Path) -> bool:
    """Returns whether an entry can be read; of another format than zlib's, only whether there is anything."""
    try:
        content = entry.read_bytes()
        if content[:1] == b"x":  # zlib's first byte
            zlib.decompress(content)
    except FileNotFoundError:
        return True  # another command has removed it
    except zlib.error:
        return False
    return bool(content)


def _remove_oldest(folder: Path, most_bytes: int) -> None:
    """Removes the oldest entries until all take at most `most_bytes`."""
    entries = sorted((found.st_mtime, found.st_size, entry) for entry, found in _entries(folder))
    total = sum(size for _, size, _ in entries)
    for _, size, entry in entries:
        if total <= most_bytes:
            return
        entry.unlink(missing_ok=True)
        total -= size
