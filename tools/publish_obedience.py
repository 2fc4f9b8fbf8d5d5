"""Makes the published table of obedience, docs/results/obedience.json, from a run of text to image.

    python -m experiments.text_to_image
    python -m experiments.text_to_image evaluate --guidance 0                    # and 1, 4: a row for each
    python -m tools.publish_obedience runs/text_to_image-captions
    python -m tools.results

Rows are the data, what the autoencoder makes of them, samples at each weight of guidance that the run was evaluated
with, for captions of both kinds and for shuffled ones; columns are the attributes.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from gm_jax import runner
from gm_jax.errors import UserError
from gm_jax.evaluation import obedience, results
from gm_jax.files import write_text
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import load_saved
from tools.publish import check_command, published, where_it_ran
from tools.results import RECORDS

_DATA = {"ceiling": "the data", "reconstructed": "reconstructions"}
_SAMPLES = {
    "obedience_seen": "samples, combinations of training",
    "obedience_held_out": "samples, held-out combinations",
    "floor": "samples, captions shuffled",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes the published table of obedience."""

    run: Positional[Path]
    """The run's folder."""
    command: str = "python -m experiments.text_to_image"
    """The command that made the run."""
    folder: Path = RECORDS
    """Folder of the records."""


def publish(config: Config) -> str:
    """Writes the table; returns how many rows it has.

    Raises:
        UserError: the folder has no rates, or several for one weight, or the command is another run's.
    """
    folder = Folder(config.run)
    check_command(config.command, load_saved(config.run))
    found = [record for record in results.read(folder.results) if record.name.startswith((*_DATA, *_SAMPLES))]
    weights = sorted({record.settings["guidance"] for record in found})
    if not weights:
        raise UserError(f"{folder.results} has no rates of obedience: evaluate the run first.")
    facts = {"command": config.command, **where_it_ran(folder.versions, None)}
    rows = [_row(found, name, title, None, weights[0]) for name, title in _DATA.items()]
    rows += [_row(found, name, title, weight, weight) for name, title in _SAMPLES.items() for weight in weights]
    columns: list[dict[str, Any]] = [{"title": "pictures", "field": "pictures"}, {"title": "w", "field": "weight"}]
    columns += [{"title": name, "number": name, "digits": 2, "sign": False} for name in obedience.ATTRIBUTES]
    content = {"columns": columns, "rows": [{**row, **facts} for row in rows]}
    path = config.folder / "obedience.json"
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return f"{path}: {len(rows)} rows. Next: python -m tools.results"


def _row(found: Iterable[results.Record], name: str, title: str, shown: float | None, weight: float) -> dict[str, Any]:
    """Returns the row of one set of pictures at one weight of guidance; `shown` is the weight that the table prints."""
    numbers = []
    for record in found:
        attribute = record.name.removeprefix(f"{name}_")
        if attribute in obedience.ATTRIBUTES and record.settings["guidance"] == weight:
            numbers.append({**published(record), "name": attribute})
    if len({number["name"] for number in numbers}) < len(numbers):
        raise UserError(
            f"the run has several rates {name} with w = {weight:g}: evaluate one checkpoint, seed and split."
        )
    word = "" if shown is None else f"{shown:g}"
    return {"id": f"{name}-{word or 'data'}", "labels": {"pictures": title, "weight": word}, "numbers": numbers}


if __name__ == "__main__":
    runner.program(Config, publish)
