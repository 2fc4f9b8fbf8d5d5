"""The pictures of a run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import signals
from gm_jax.evaluation import results
from gm_jax.plotting import curves, densities, images, vector_fields
from gm_jax.plotting.layout import Grid
from gm_jax.recipes.experiment import DensityPicture, FlowPicture
from gm_jax.runner import animate, samples
from gm_jax.runner.run import Run
from gm_jax.training import metrics, parallel
from gm_jax.training.state import TrainState
from gm_jax.types import Array, Likelihood

_IMAGES, _POINTS = 100, 1_000  # samples in the picture
_LINES = 150  # of a flow


class Drawn(NamedTuple):
    """The pictures of a run.

    Attributes:
        paths: all of them; the first is the one to look at.
        first: what the first one shows.
    """

    paths: list[Path]
    first: str


def draw_pictures(
    run: Run, state: TrainState, *, seed: int, before: Callable[[str], None] = lambda name: None
) -> Drawn:
    """Draws the pictures of a state.

    Args:
        run: with data.
        state: whose pictures.
        seed: of the samples.
        before: called before each picture with its name.
    Raises:
        KeyboardInterrupt: a signal has asked this process to stop.
    """
    state, subtitle = parallel.local(state), describe(run, int(state.step))
    grids: dict[str, Callable[[], Grid]] = {}
    if run.experiment.sample_mean is not None:
        grids["sample_means"] = lambda: _sample_means(run, state, seed=seed)
    grids["samples"] = lambda: _samples(run, state, seed=seed)
    for name, picture in run.experiment.pictures.items():
        if not isinstance(picture, (DensityPicture, FlowPicture)):
            grids[name] = functools.partial(_picture, run, state, picture, seed)
    paths, first = [], ""
    for name, make in grids.items():
        signals.check()
        before(name)
        grid = make()
        if not grid.examples.size:  # the data are too few for this picture
            continue
        first = first or grid.title
        paths.append(draw_grid(run, run.folder.root / f"{name}.png", grid, subtitle=subtitle))
    for name, picture in run.experiment.pictures.items():
        if not isinstance(picture, (DensityPicture, FlowPicture)):
            continue
        signals.check()
        before(name)
        paths.append(run.folder.root / f"{name}.png")
        if isinstance(picture, DensityPicture):
            _draw_density(run, state, paths[-1], picture, subtitle)
        else:
            _draw_flow(run, state, paths[-1], picture, subtitle)
    signals.check()
    before("progress")
    paths += _draw_progress(run, state)
    return Drawn(paths + animate.draw_animations(run, state, seed=seed), first)


def num_parts(run: Run) -> int:
    """Returns how often `draw_pictures` calls `before`."""
    return len(run.experiment.pictures) + 2 + (run.experiment.sample_mean is not None)


def describe(run: Run, step: int) -> str:
    """Returns what a picture shows the samples of: the experiment, the data and the step."""
    return f"{_name(run)}, step {step:,}"


def _name(run: Run) -> str:
    """Returns the names of the experiment and of the data; the recipe's if no experiment made the run."""
    made_by = run.command.rpartition(".")[2] or run.config.recipe.rpartition(":")[2].removeprefix("build_")
    return f"{made_by} on {run.spec.name}"


def over_time(run: Run, state: TrainState, num: int) -> np.ndarray:
    """Draws [num, ...] samples to compare over time; their means for a model whose samples are hard to read."""
    mean = run.experiment.sample_mean
    if mean is None or len(run.spec.shape) != 3:
        return samples.draw_samples(run, state, num, seed=0)
    return samples.draw_means(run, mean, state, num, seed=0)


def draw_grid(run: Run, path: Path, grid: np.ndarray | Grid, *, subtitle: str = "") -> Path:
    """Writes [rows, columns, ...] examples as a PNG, points on top of points of the data; returns the path."""
    data = None if len(run.spec.shape) == 3 else run.loaded["validation"]["x"][:_POINTS]
    images.draw_grid(path, grid, run.spec.levels, behind=data, subtitle=subtitle)
    return path


def _samples(run: Run, state: TrainState, *, seed: int) -> Grid:
    num = _POINTS if run.spec.shape == (2,) else _IMAGES
    drawn, data, below = samples.draw_samples(run, state, num, seed=seed), None, ", below a row of the data"
    if len(run.spec.shape) == 3:
        data = run.fixed_examples()
        if run.experiment.observation is not None:
            data = np.asarray(run.experiment.observation.observe(jax.random.key(0), jnp.asarray(data)))
            if run.experiment.sample_mean is not None and not np.array_equal(data, run.fixed_examples()):
                below += " as the model sees them (sample_means.png: their means)"
    return images.below_data(drawn, data, title="Samples", below=below)


def _sample_means(run: Run, state: TrainState, *, seed: int) -> Grid:
    mean = run.experiment.sample_mean
    if mean is None:
        raise ValueError(f"{run.config.recipe} has no means of samples")
    num = _POINTS if run.spec.shape == (2,) else _IMAGES
    data = run.fixed_examples() if len(run.spec.shape) == 3 else None
    title, below = "Means of samples, before their pixels are drawn", ", below a row of the data"
    return images.below_data(samples.draw_means(run, mean, state, num, seed=seed), data, title=title, below=below)


def _picture(run: Run, state: TrainState, picture: Callable[..., Grid], seed: int) -> Grid:
    return jax.jit(picture)(state.eval_params, state.model_state, jax.random.key(seed), run.fixed_examples())


def _draw_density(run: Run, state: TrainState, path: Path, picture: DensityPicture, subtitle: str) -> None:
    def bound(fn: Callable[..., Array]) -> Callable[[np.ndarray], Array]:
        return functools.partial(jax.jit(fn), state.eval_params, state.model_state)

    push = None if picture.push is None else bound(picture.push)
    x = run.loaded["validation"]["x"]
    densities.draw_density(path, bound(picture.log_density), x, push=push, title=subtitle)


def _draw_flow(run: Run, state: TrainState, path: Path, picture: FlowPicture, subtitle: str) -> None:
    lines = jax.jit(picture.lines, static_argnums=3)(state.eval_params, state.model_state, jax.random.key(0), _LINES)
    field = functools.partial(jax.jit(picture.field), state.eval_params, state.model_state)
    x, name = run.loaded["validation"]["x"], picture.field_name
    vector_fields.draw_flow(path, np.asarray(lines), field, x, field_name=name, title=subtitle)


def _draw_progress(run: Run, state: TrainState) -> list[Path]:
    """Writes the pictures of the training's progress, if there was any, and returns their paths."""
    paths = []
    drawn = sorted(run.folder.samples.glob("step-*.png"))
    name = _name(run)
    if drawn:
        paths.append(run.folder.root / "over_time.png")
        steps = {f"step {int(path.stem.removeprefix('step-')):,}": path for path in drawn}
        images.tile(paths[-1], steps, title=f"Samples over time, from the same noise: {name}")
    signals.check()
    lines = metrics.read(run.folder.metrics)
    if lines:
        paths.append(run.folder.root / "curves.png")
        label = _validation_label(run, state)
        curves.draw_curves(paths[-1], metrics.curves(lines), validation_label=label, title=name)
    return paths


def _validation_label(run: Run, state: TrainState) -> str:
    """Returns the label of the validation curve, with the sign, the kind and the measure of its -log p."""
    found = validation_likelihood(run, state)
    if found is None:
        return "-log p, nats"
    kind = results.KIND_OF_NLL[found.kind]
    settings = {**dict(found.settings), **run.experiment.settings}
    space = settings.get("space")
    measure = f"density on {space}" if found.measure == "continuous" and space else found.measure
    return f"-log p, nats\n{results.SIGN_OF_NLL[found.kind]} {kind}\n{measure}"


def validation_likelihood(run: Run, state: TrainState) -> Likelihood | None:
    """Returns the kind and measure of a validation's likelihood, around shapes only; None if there is none."""
    log_prob = run.experiment.validation or run.experiment.model.log_prob
    if log_prob is None:
        return None
    example = run.fixed_examples()[:1]
    return jax.eval_shape(log_prob, state.eval_params, state.model_state, jax.random.key(0), example)
