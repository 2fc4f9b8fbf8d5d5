"""Puts the rows that `plan --markdown` prints into the published records, docs/results/plans.json.

    python -m experiments.vae plan --markdown --train.parallel pmap --batch-per-chip 128 \
        --topology v5e:16x16 v5p:8x8x8 | python -m tools.publish_plans
    python -m tools.results
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gm_jax import runner
from gm_jax.errors import UserError
from gm_jax.files import write_text
from tools.results import RECORDS, read


@dataclasses.dataclass(frozen=True)
class Config:
    """Puts the rows of plans, from standard input, into the published records."""

    folder: Path = RECORDS
    """Folder of the records."""


def publish(config: Config) -> str:
    """Replaces the records of the plans that standard input holds; returns how many there are.

    Raises:
        UserError: standard input holds no row of a plan.
    """
    table = read("plans", config.folder)
    rows = parsed(sys.stdin, [column["title"] for column in table["columns"]])
    if not rows:
        raise UserError("standard input holds no plan: pipe the output of `plan --markdown` into this command.")
    known = {row["id"]: row for row in table["rows"]}
    for identity, labels in rows.items():
        facts = table["rows"][0] if identity not in known else known[identity]
        known[identity] = {**facts, "id": identity, "labels": labels}
    content = {**table, "rows": list(known.values())}
    write_text(config.folder / "plans.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return f"{config.folder / 'plans.json'}: {len(rows)} plans. Next: python -m tools.results"


def parsed(lines: Iterable[str], titles: list[str]) -> Mapping[str, dict[str, Any]]:
    """Returns the rows of a Markdown table of plans: "vae-v5e:16x16" -> title -> cell."""
    found = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == len(titles):
            found[f"{cells[0].strip('`')}-{cells[1]}"] = dict(zip(titles, cells, strict=True))
    return found


if __name__ == "__main__":
    runner.program(Config, publish)
