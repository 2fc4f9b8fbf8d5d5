"""Trains every family on the same data for the same time, and compares them on one page.

    python -m tools.compare                                    # writes runs/compare/report.html
    python -m tools.compare --seconds 60 --families VAE MADE
    python -m tools.compare --data toy:pinwheel digits4x4

The data are black and white digits, a density in the plane and a small world whose distribution is known. The page
reports likelihood, sample quality and speed. To add a family, add a row to gm_jax/comparison/families.py.
"""

import dataclasses
import time
from pathlib import Path

from gm_jax import runner
from gm_jax.config import CountOrZero, Rate
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Compares all families on the same data after the same training time."""

    seconds: Rate = 4.0
    """Training time of each family on each data set, in seconds; compilation and measurement are not included."""
    families: tuple[str, ...] = ()
    """Names of the families; by default all."""
    data: tuple[str, ...] = ("binarized_digits", "toy:two_moons", "digits4x4")
    """Data sets: binary images of 8x8 pixels, toy:NAME densities in the plane, or digits4x4."""
    seed: CountOrZero = 0
    """Seed of training and sampling."""
    workdir: Path = Path("runs/compare")
    """Folder for report.html, report.md, results.json and the pictures."""


def compare(config: Config) -> Path:
    """Trains and measures all families, and returns the path of the page, which is rewritten after each family.

    Raises:
        UserError: there is no family of a given name, or the folder holds a run.
    """
    # Here, not above, so that --help need not import jax.
    from gm_jax.comparison import families
    from gm_jax.runner.folder import Folder

    table = {family.name: family for family in families.table()}
    unknown = [name for name in config.families if name not in table]
    if unknown:
        raise UserError(f"there is no family {', '.join(unknown)}: choose from {', '.join(table)}.")
    folder = Folder(config.workdir)
    if folder.holds_run():
        raise UserError(f"{folder.root} holds a run, whose results.json would be lost: choose another --workdir.")
    folder.create()
    with folder.locked():
        return _compare(config, table)


def _compare(config: Config, table: dict) -> Path:
    import jax

    from gm_jax.comparison import measure, report
    from gm_jax.evaluation import features
    from gm_jax.runner.folder import Folder, record_versions

    taxonomies = {name: row.taxonomy for name, row in table.items() if row.taxonomy is not None}
    record_versions(Folder(config.workdir).versions, {"devices": [str(device) for device in jax.devices()]})
    extractor, outcomes, started = features.load("digits-cnn"), [], time.perf_counter()
    for data in config.data:
        fits = data in ("binarized_digits", "digits")
        outcomes.append(measure.measure_data(data, config.workdir, extractor if fits else None))
        for name in config.families or table:
            outcome = measure.measure_family(
                table[name],
                data,
                seconds=config.seconds,
                seed=config.seed,
                folder=config.workdir,
                extractor=extractor if fits else None,
            )
            outcomes.append(outcome)
            minutes = (time.perf_counter() - started) / 60
            print(f"{minutes:5.1f} min  {data}: {name}: {outcome.error or f'{outcome.steps} steps'}", flush=True)
            facts = {
                "training": f"{config.seconds:g} s each",
                "total": f"{minutes:.1f} min",
                "machine": f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
                "seed": str(config.seed),
            }
            page = report.write(config.workdir, outcomes, facts, taxonomies)
    return page


if __name__ == "__main__":
    runner.program(Config, compare)
