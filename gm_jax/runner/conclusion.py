"""The end of a training run: its results and pictures, and the note with which it shows them again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gm_jax
from gm_jax.evaluation.results import Record
from gm_jax.files import read_json, write_text
from gm_jax.runner import draw, measure
from gm_jax.runner.run import Run


def note(run: Run, records: list[Record], pictures: draw.Drawn, *, last: int) -> None:
    """Writes evaluated.json, which `show_again` reads.

    Args:
        run: the run.
        records: its results, which results.json holds too.
        pictures: its pictures.
        last: the last step of the training, which is not that of the best checkpoint.
    """
    content = {
        "last_step": last,
        "gm_jax": gm_jax.__version__,
        "records": [record._asdict() for record in records],
        "pictures": [path.name for path in pictures.paths],
        "first": pictures.first,
    }
    write_text(run.folder.evaluated, json.dumps(content, indent=1, allow_nan=False) + "\n")


def show_again(run: Run, *, last: int) -> bool:
    """Prints the results of a run that was evaluated already, and returns whether it was.

    It was if this version evaluated the same last step, if results.json still holds what was found, and if all pictures
    are there.
    """
    found = _read(run.folder.evaluated)
    if found.get("last_step") != last or found.get("gm_jax") != gm_jax.__version__:
        return False
    try:
        records = [Record(**record) for record in found["records"]]
        pictures = draw.Drawn([run.folder.root / name for name in found["pictures"]], found["first"])
        text = measure.table_and_files(run, records, pictures)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # damaged, or of another version
        return False
    held = measure.read_results(run)
    if not all(record in held for record in records) or not all(path.exists() for path in pictures.paths):
        return False
    print(f"the run is complete: these are its results at step {last:,}; `evaluate` measures them again\n\n{text}")
    return True


def _read(path: Path) -> Mapping[str, Any]:
    """Reads a file that holds a JSON object; returns an empty one if it does not."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
