"""Files that are written whole or not at all."""

from pathlib import Path


def temporary(path: Path) -> Path:
    """The file next to `path` that `write_text` writes before it renames it."""
    return path.with_name(path.name + ".tmp")


def write_text(path: Path, text: str) -> None:
    """Writes a file in one move: a reader, also after a kill, finds the old file or the new one, whole."""
    temporary(path).write_text(text)
    temporary(path).replace(path)
