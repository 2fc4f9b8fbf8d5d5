"""Files that are written whole or not at all, and never through a link."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

_OWN_NAME = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 by one rename: a reader finds the old file or the new one, also after a kill."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that replaces `path` by one rename at the end of the block, or vanishes if the block fails.

    Nobody can know the name of the new file, so that no link and no second process waits there. A link at `path` is
    replaced; the file that it points to stays as it is.

    Raises:
        OSError: the file cannot be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | _OWN_NAME, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


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
