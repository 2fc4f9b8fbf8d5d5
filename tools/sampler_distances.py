"""Measures the samples of a run by one sampler and several seeds, and adds a row to docs/results/score_samples.json.

    python -m tools.sampler_distances runs/ddpm --row ddpm-dpmpp --model "DDPM, DPM-Solver++(2M)" --evaluations 15 \
        --sampler sampler.method=dpmpp sampler.steps=15 --command "python -m experiments.ddpm"
    python -m tools.results

A row has the mean of the Frechet distance by digits-cnn over the seeds, and its standard deviation from seed to seed,
for as many samples as there are training images.
"""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from gm_jax import runner, signals
from gm_jax.config import Count
from gm_jax.errors import UserError
from gm_jax.files import write_text
from gm_jax.runner.folder import Folder
from gm_jax.runner.run import load_saved, reopen
from tools.publish import check_command, where_it_ran, with_row
from tools.results import RECORDS, read

TABLE = "score_samples"
COLUMNS = [
    {"title": "model and sampler", "field": "model"},
    {"title": "data", "field": "data"},
    {"title": "network evaluations a sample", "number": "evaluations", "sign": False},
    {"title": "Fréchet distance", "number": "frechet", "digits": 2, "sign": False},
    {"title": "command", "field": "command"},
]  # of a table that does not exist yet


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures samples of a run by one sampler and several seeds."""

    run: Positional[Path]
    """The run's folder."""
    row: str
    """Name of the row, unique in the table."""
    model: str
    """What the table calls the model and its sampler."""
    evaluations: Count
    """Network evaluations of one sample."""
    command: str
    """The command that made the run."""
    sampler: tuple[str, ...] = ()
    """Fields of the configuration to change for sampling, e.g. sampler.method=dpmpp sampler.steps=15."""
    seeds: Count = 5
    """How many seeds, 0 and upwards."""
    folder: Path = RECORDS
    """Folder of the records."""


def measure(config: Config) -> str:
    """Measures, writes the row, and returns what was written.

    Raises:
        UserError: the folder holds no run, the command is another run's, or a field of the sampler is not one.
    """
    # Here, not above, so that --help need not import jax.
    from gm_jax.evaluation.features import load
    from gm_jax.runner.sample_quality import Sampler
    from gm_jax.runner.sample_quality import measure as measure_samples

    found, folder = load_saved(config.run), Folder(config.run)
    check_command(config.command, found)
    run = reopen(config.run, changes=changes(config.sampler))
    state, step = run.restore("best")
    extractor, records = load("digits-cnn", None), []
    for seed in range(config.seeds):
        signals.check()
        settings = {**run.facts, "step": step, "seed": seed}
        drawn = measure_samples(run, extractor, Sampler(run, state, seed=seed), settings=settings)
        records.append(next(record for record in drawn if record.name.startswith("frechet")))
    values = [record.value for record in records if record.value is not None]
    number = {
        **records[0]._asdict(),
        "name": "frechet",
        "value": statistics.fmean(values),
        "settings": {**records[0].settings, "seeds": config.seeds, "sampler": " ".join(config.sampler)},
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
        "standard_error": None,
    }
    row = {
        "id": config.row,
        "model": config.model,
        "data": run.spec.name,
        "numbers": [{"name": "evaluations", "value": config.evaluations, "unit": "of a sample"}, number],
        "published": None,
        "command": config.command,
        "minutes": None,
        "busy": None,
        **where_it_ran(folder.versions, None),
    }
    is_new = not (config.folder / f"{TABLE}.json").exists()
    table = {"columns": COLUMNS, "rows": []} if is_new else read(TABLE, config.folder)
    content = json.dumps(with_row(table, row), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(config.folder / f"{TABLE}.json", content + "\n")
    return f"{config.model}: {number['value']:.3f} over {len(values)} seeds. Next: python -m tools.results"


def changes(settings: tuple[str, ...]) -> dict[str, Any]:
    """Returns fields of a configuration, nested, from words such as sampler.steps=15.

    Raises:
        UserError: a word is not of this form.
    """
    nested: dict[str, Any] = {}
    for word in settings:
        name, is_pair, text = word.partition("=")
        if not name or not is_pair:
            raise UserError(f"{word!r} is not a field and its value: write e.g. sampler.steps=15.")
        *sections, last = name.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        try:
            inner[last] = json.loads(text)
        except ValueError:
            inner[last] = text
    return nested


if __name__ == "__main__":
    runner.program(Config, measure)
