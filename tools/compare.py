"""Every family on the same data for the same time, on one page.

    python -m tools.compare                                    # runs/compare/report.html
    python -m tools.compare --seconds 60 --families VAE MADE
    python -m tools.compare --data toy:pinwheel digits4x4

It trains one model of every family on black and white digits, on a density in the plane and on a small world whose
distribution is known, and measures likelihood, samples and speed. A family joins by one row in the
table of gm_jax/comparison/families.py.
"""

import dataclasses
import time
from pathlib import Path

from gm_jax import runner
from gm_jax.comparison import families
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared, and for how long each is trained."""

    seconds: runner.Rate = 4.0
    """Of training for each family on each data set; compiling and measuring come on top."""
    families: tuple[str, ...] = ()
    """Names of the families; by default all."""
    data: tuple[str, ...] = ("binarized_digits", "toy:two_moons", "digits4x4")
    """Data sets: binary images of 8x8, toys in the plane, digits4x4."""
    seed: runner.CountOrZero = 0
    """Of trainings and samples."""
    workdir: Path = Path("runs/compare")
    """Where report.html, report.md, results.json and the pictures go."""


def compare(config: Config) -> Path:
    """Train and measure all; returns the page, which is written anew after each family."""
    import jax

    from gm_jax.comparison import measure, report
    from gm_jax.evaluation import features

    table = {family.name: family for family in families.table()}
    unknown = [name for name in config.families if name not in table]
    if unknown:
        raise UserError(f"there is no family {', '.join(unknown)}; there are {', '.join(table)}.")
    config.workdir.mkdir(parents=True, exist_ok=True)
    extractor, outcomes, started = features.load("digits-cnn"), [], time.perf_counter()
    for data in config.data:
        fits = data == "binarized_digits" or data == "digits"
        outcomes.append(measure.reference(data, extractor if fits else None))
        for name in config.families or table:
            measured = measure.outcome(
                table[name],
                data,
                seconds=config.seconds,
                seed=config.seed,
                folder=config.workdir,
                extractor=extractor if fits else None,
            )
            outcomes.append(measured)
            minutes = (time.perf_counter() - started) / 60
            print(f"{minutes:5.1f} min  {data}: {name}: {measured.error or f'{measured.steps} steps'}", flush=True)
            facts = {
                "training": f"{config.seconds:g} s each",
                "in all": f"{minutes:.1f} min",
                "machine": f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
                "seed": str(config.seed),
            }
            written = report.write(config.workdir, outcomes, facts)
    return written


if __name__ == "__main__":
    runner.program(Config, compare)
