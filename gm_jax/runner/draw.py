"""The pictures of a run."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from gm_jax import signals
from gm_jax.evaluation import results
from gm_jax.plotting import densities, images
from gm_jax.recipes.experiment import DensityPicture
from gm_jax.runner import animate
from gm_jax.runner.run import Run
from gm_jax.runner.samples import draw_samples
from gm_jax.training import metrics, parallel
from gm_jax.training.state import TrainState
from gm_jax.types import Array, Likelihood

_IMAGES, _POINTS = 100, 1_000  # samples in the picture


def draw_pictures(run: Run, state: TrainState, *, seed: int) -> list[Path]:
    """Writes the pictures of a state and returns their paths."""
    root, key, state = run.folder.root, jax.random.key(seed), parallel.local(state)
    num = _POINTS if run.spec.shape == (2,) else _IMAGES
    signals.check()
    paths = [draw_grid(run, root / "samples.png", images.as_grid(draw_samples(run, state, num, seed=seed)))]
    for name, picture in run.experiment.pictures.items():
        signals.check()
        path = root / f"{name}.png"
        if isinstance(picture, DensityPicture):
            _draw_density(run, state, path, picture)
        else:
            grid = jax.jit(picture)(state.eval_params, state.model_state, key, run.fixed_examples())
            if not grid.size:  # the data are too few for this picture
                continue
            draw_grid(run, path, np.asarray(grid))
        paths.append(path)
    signals.check()
    return paths + _draw_progress(run, state) + animate.draw_animations(run, state, seed=seed)


def draw_grid(run: Run, path: Path, grid: np.ndarray) -> Path:
    """Writes [rows, columns, ...] examples as a PNG, points on top of points of the data; returns the path."""
    data = run.loaded["validation"]["x"][:_POINTS] if run.spec.shape == (2,) else None
    images.draw_grid(path, grid, run.spec.levels, behind=data)
    return path


def _draw_density(run: Run, state: TrainState, path: Path, picture: DensityPicture) -> None:
    def bound(fn: Callable[..., Array]) -> Callable[[np.ndarray], Array]:
        return functools.partial(jax.jit(fn), state.eval_params, state.model_state)

    push = None if picture.push is None else bound(picture.push)
    densities.draw_density(path, bound(picture.log_density), run.loaded["validation"]["x"], push=push)


def _draw_progress(run: Run, state: TrainState) -> list[Path]:
    """Writes the pictures of the training's progress, if there was any, and returns their paths."""
    paths = []
    over_time = sorted(run.folder.samples.glob("step-*.png"))
    if over_time:
        paths.append(run.folder.root / "over_time.png")
        steps = {f"step {int(path.stem.removeprefix('step-')):,}": path for path in over_time}
        images.tile(paths[-1], steps)
    signals.check()
    lines = metrics.read(run.folder.metrics)
    if lines:
        paths.append(run.folder.root / "curves.png")
        images.draw_curves(paths[-1], metrics.curves(lines), validation_label=_validation_label(run, state))
    return paths


def _validation_label(run: Run, state: TrainState) -> str:
    """Returns the label of the validation curve, with the sign, the kind and the measure of its -log p."""
    found = validation_likelihood(run, state)
    if found is None:
        return "validation -log p, nats"
    kind = results.KIND_OF_NLL[found.kind]
    space = {**dict(found.settings), **run.experiment.settings}.get("space")
    measure = f"density on {space}" if found.measure == "continuous" and space else found.measure
    return f"validation -log p, nats ({results.SIGN_OF_NLL[found.kind]} {kind}, {measure})"


def validation_likelihood(run: Run, state: TrainState) -> Likelihood | None:
    """Returns the kind and measure of a validation's likelihood, around shapes only; None if there is none."""
    log_prob = run.experiment.validation or run.experiment.model.log_prob
    if log_prob is None:
        return None
    example = run.fixed_examples()[:1]
    return jax.eval_shape(log_prob, state.eval_params, state.model_state, jax.random.key(0), example)
