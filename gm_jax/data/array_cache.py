"""A cache of decoded arrays: .npy files under $XDG_CACHE_HOME/gm_jax (default ~/.cache/gm_jax).

An entry is a folder: one .npy per array, and `manifest.json` with each array's SHA-256 and other facts. It appears by
one rename, so no reader sees a part of it, and it is used only if its hashes match. The cache is a convenience: if it
cannot be read or written, the data are decoded again without a message.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.files import cache_home, read_json
from gm_jax.hashing import array_digest

Splits = dict[str, dict[str, np.ndarray]]  # "train" -> {"x": [N, ...], "label": [N]}


def read(entry: str) -> tuple[Splits, dict[str, Any]] | None:
    """Reads an entry and verifies its hashes.

    Args:
        entry: the name of the entry's folder.
    Returns:
        (splits, facts) as written, or None if there is no such entry or it is damaged.
    """
    root = cache_home()
    if root is None:
        return None
    try:
        manifest = read_json(_regular(root / entry / "manifest.json"))
        splits: Splits = {}
        for record in manifest["arrays"]:
            file = _regular(root / entry / _file_name(record["split"], record["name"]))
            array = np.load(file, allow_pickle=False)
            if array_digest(array) != record["sha256"]:
                return None
            splits.setdefault(record["split"], {})[record["name"]] = array
        return splits, manifest["facts"]
    except Exception:  # the readers of JSON and numpy raise many types for damaged bytes
        return None


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
        root.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{entry}.", dir=root))
        records = []
        for split, arrays in splits.items():
            for name, array in arrays.items():
                np.save(building / _file_name(split, name), array, allow_pickle=False)
                records.append({"split": split, "name": name, "sha256": array_digest(array)})
        (building / "manifest.json").write_text(json.dumps({"arrays": records, "facts": facts}, indent=1))
        # `read` has refused the entry, so an existing folder is damaged, or an equal copy of another process.
        shutil.rmtree(root / entry, ignore_errors=True)
        building.rename(root / entry)
    except OSError:
        if building is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(building)


def _regular(file: Path) -> Path:
    """Refuses a pipe, which would block."""
    if not file.is_file():
        raise FileNotFoundError(file)
    return file


def _file_name(split: str, name: str) -> str:
    return f"{split}.{name}.npy"
