"""Configurations of samplers on Gaussian paths to samplers."""

from collections.abc import Callable
from functools import partial
from typing import Any

from gm_jax.errors import UserError
from gm_jax.models.path_sampling import PathSampler
from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.recipes.configs.score import PathSamplerConfig
from gm_jax.samplers import dpm_solver, ode, sde, time_grids
from gm_jax.samplers.ode import PredictFn
from gm_jax.types import Array, Key

GRIDS: dict[str, Callable[[GaussianPath, int], Array]] = {
    "uniform": time_grids.uniform,
    "trailing": time_grids.trailing,
    "log_snr": time_grids.uniform_log_snr,
    "karras": time_grids.karras,
}
ODE_METHODS: dict[str, Callable[..., Array]] = {
    "euler": ode.euler,
    "heun": ode.heun,
    "dpmpp": dpm_solver.dpm_solver_2m,
    "adaptive": ode.adaptive,
}
SDE_METHODS: dict[str, Callable[..., Array]] = {
    "euler_maruyama": sde.euler_maruyama,
    "ancestral": sde.ancestral,
    "predictor_corrector": sde.predictor_corrector,
    "annealed_langevin": sde.annealed_langevin,
}


def path_sampler(config: PathSamplerConfig, clip: tuple[float, float] | None) -> PathSampler:
    """Returns the sampler that a configuration describes; `clip` is the range of the data, None without one.

    Raises:
        UserError: a setting belongs to another method, or there are too few steps.
    """
    _refuse_settings_of_other_methods(config)
    if config.steps < 2 and not (config.method == "adaptive" or config.grid == "trailing"):
        raise UserError(f"--sampler.steps {config.steps} is too few: use at least 2, or --sampler.grid trailing.")
    grid_fn = partial(time_grids.karras, rho=config.rho) if config.grid == "karras" else GRIDS[config.grid]
    if config.clip and clip is None:
        raise UserError("--sampler.clip needs data with a range: points have none.")
    return named_sampler(config.method, config.steps, grid_fn, clip=clip if config.clip else None, **_settings(config))


def named_sampler(
    method: str,
    steps: int,
    grid_fn: Callable[[GaussianPath, int], Array],
    *,
    clip: tuple[float, float] | None,
    **settings: Any,
) -> PathSampler:
    """Returns a sampler by its name: a solver on a grid of times, which ends at the predicted data.

    Args:
        method: a key of ODE_METHODS or SDE_METHODS.
        steps: times to visit.
        grid_fn: of `time_grids`.
        clip: the range to which predictions are clipped; None for the model as it is.
        **settings: of the method.
    """

    def draw(key: Key, predict_fn: PredictFn, path: GaussianPath, x_T: Array) -> Array:
        times = grid_fn(path, 2 if method == "adaptive" else steps)
        if method in SDE_METHODS:
            x = SDE_METHODS[method](key, predict_fn, path, x_T, times, **settings)
        elif settings.get("churn"):
            x = ode.heun_with_churn(key, predict_fn, path, x_T, times, **settings)
        else:
            x = ODE_METHODS[method](predict_fn, path, x_T, times)
        return ode.denoise(predict_fn, x, times[-1])

    return PathSampler(draw, clip, one_by_one=method == "adaptive")


def _settings(config: PathSamplerConfig) -> dict[str, Any]:
    if config.method == "predictor_corrector":
        return {"corrector_steps": config.corrector_steps or 1, "snr": config.snr or 0.16}
    if config.method == "annealed_langevin":
        return {"steps_per_time": config.langevin_steps or 5, "step_size": config.langevin_step_size or 0.2}
    return {"churn": config.churn} if config.churn else {}


def _refuse_settings_of_other_methods(config: PathSamplerConfig) -> None:
    owners = {
        "churn": ("heun", config.churn),
        "corrector_steps": ("predictor_corrector", config.corrector_steps),
        "snr": ("predictor_corrector", config.snr),
        "langevin_steps": ("annealed_langevin", config.langevin_steps),
        "langevin_step_size": ("annealed_langevin", config.langevin_step_size),
    }
    for name, (owner, value) in owners.items():
        if value and config.method != owner:
            raise UserError(
                f"--sampler.{name.replace('_', '-')} {value} has no effect on {config.method}: leave it out, or use "
                f"--sampler.method {owner}."
            )
    if config.langevin_step_size is not None and config.langevin_step_size >= 4.0:
        raise UserError(f"--sampler.langevin-step-size {config.langevin_step_size} diverges: use less than 4.")
