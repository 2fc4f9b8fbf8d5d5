"""Files that are written whole or not at all, survive a power cut, and are never written through a link.

A rename alone keeps a file whole when the process is killed. When the power fails, the disk may have the new name
without the content: hence the file is synced before its rename, and its folder after it.
"""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

_OWN_NAME = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_DEEPEST = 64  # levels of a JSON document

# A folder that may not be listed, or a file system that syncs no folders.
_UNSYNCED = {errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 by one rename: a reader finds the old file or the new one, also after a power cut."""
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: Path, *, most_bytes: int = 2**28) -> Any:
    """Reads a JSON document that somebody else may have written, with bounded memory.

    Raises:
        OSError: the file is missing or may not be read.
        ValueError: it is not a plain file, larger than `most_bytes`, or nothing that `parse_json` takes.
    """
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise ValueError(f"more than {most_bytes} bytes")
        data = file.read(most_bytes)
    return parse_json(data)


def parse_json(data: bytes) -> Any:
    """Parses a JSON document of UTF-8.

    Raises:
        ValueError: it is damaged, or is deeper, holds larger numbers or more equal keys than any that this package
            writes: a depth of 64, numbers that are finite and integers below 2^64, each key once.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_integer,
        )
    except (RecursionError, MemoryError):
        raise ValueError("nested too deeply") from None
    _refuse_deep(value)
    return value


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a plain file to read: a pipe would block, and a device may never end.

    Raises:
        OSError: the file is missing or may not be read.
        ValueError: it is something else, or a link to itself.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("a link to itself") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before fdopen, which refuses a folder with another error
        os.close(descriptor)
        raise ValueError("not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that replaces `path` by one rename at the end of the block, or vanishes if the block fails.

    Nobody can know the name of the new file, so that no link and no second process waits there. A link at `path` is
    replaced; the file that it points to stays as it is.

    Raises:
        OSError: the file cannot be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    with naming(path):
        descriptor = os.open(temporary, os.O_WRONLY | _OWN_NAME, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def appending(path: Path) -> TextIO:
    """Opens a file of UTF-8 to append to.

    Raises:
        OSError: it is a link, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "a", encoding="utf-8")


def is_temporary(path: Path, *, of: Path) -> bool:
    """Returns whether a kill has left this file behind while `replacing` wrote the file `of`."""
    return path.parent == of.parent and path.name.startswith(f".{of.name[:100]}.") and path.suffix == ".tmp"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts a file's name into an error of a write or sync, which carries none or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def make_folder(path: Path) -> None:
    """Makes a folder and its missing parents, so that a power cut does not take them back.

    Raises:
        OSError: it cannot be made, or is something else.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk: a rename before this call survives a power cut.

    Raises:
        OSError: the disk failed.
    """
    try:
        _sync(path, os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise


def sync_tree(path: Path) -> None:
    """Waits until a folder and everything in it is on the disk; the name of the folder itself is in its parent.

    Raises:
        OSError: the disk failed or is full.
    """
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        sync_folder(Path(folder))


def _sync(path: Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        lists = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [child for one in lists for child in one]
    if any(isinstance(one, (dict, list)) for one in level):
        raise ValueError("nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _integer(text: str) -> int:
    number = int(text)  # refuses more than 4,300 digits
    if abs(number) >= 2**64:
        raise ValueError("an integer that is too large")
    return number


def address(path: Path) -> str | None:
    """Returns gs://bucket/x and the like, which `Path` has made gs:/bucket/x; None for a path of this machine."""
    first = path.parts[0] if path.parts else ""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", first) is None:
        return None
    return f"{first}//{'/'.join(path.parts[1:])}"


def cache_home(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the folder of gm_jax's caches, $XDG_CACHE_HOME/gm_jax; None if there is no home directory."""
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: unset, empty or relative means the default
        base = os.path.expanduser("~/.cache")
    return Path(base) / "gm_jax" if os.path.isabs(base) else None
