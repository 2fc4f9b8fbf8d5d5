"""How long a step of DPM-Solver++(2M) takes, compared with a step of DDIM.

    python -m benchmarks.solver_steps             # about a minute, on an otherwise idle machine

Both sample the U-Net of `experiments.ddpm` on digits in as many network evaluations, with parameters of zero, because a
step takes the same time with any. A unit of work draws 64 samples at once.
"""

import dataclasses
from typing import Any

from benchmarks import command, comparison, timing
from benchmarks.latent_sampling import NUM_SAMPLES, draws

SOLVER, DDIM = "DPM-Solver++(2M)", "DDIM"
_METHODS = {SOLVER: "dpmpp", DDIM: "ddim"}


@dataclasses.dataclass(frozen=True)
class Args(command.Args):
    """How long to measure, and how many steps both samplers take."""

    sampling_steps: int = 15
    """Steps of both samplers, one network evaluation each."""


def make_run(name: str, sampling_steps: int) -> timing.Run:
    """Returns run(count), which draws NUM_SAMPLES samples `count` times by SOLVER or DDIM."""
    from experiments import ddpm
    from gm_jax import recipes
    from gm_jax.config.saved import updated
    from gm_jax.data import sources

    spec, _ = sources.load("digits")
    config = updated(ddpm.CONFIG, {"sampler": {"method": _METHODS[name], "steps": sampling_steps}})
    model = recipes.build(config, spec).model
    return draws(model, spec)


def measure(args: Args) -> dict[str, Any]:
    """Times both samplers in turns."""
    ours, theirs = ({name: timing.Case(make_run, name, args.sampling_steps)} for name in (SOLVER, DDIM))
    title = f"a sample in {args.sampling_steps} steps"
    return {"comparison": comparison.compare(title, ours, theirs, args, units=NUM_SAMPLES)}


def report(results: dict[str, Any]) -> str:
    """Returns the comparison as a Markdown table."""
    return comparison.table([results["comparison"]])


if __name__ == "__main__":
    command.main(__spec__.name, Args, measure, report, against="jax")
