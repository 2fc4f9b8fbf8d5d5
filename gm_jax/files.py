"""Files that are written whole or not at all."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes a file by one rename: a reader finds the old file or the new one, also after a kill."""
    temporary = temporary_path(path)
    temporary.write_text(text)
    temporary.replace(path)


def temporary_path(path: Path) -> Path:
    """Returns the path that `write_text` writes to before the rename; a kill may leave this file behind."""
    return path.with_name(path.name + ".tmp")
