"""The verb `evaluate`: the table, results.json and the pictures of a run, from its folder alone."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gm_jax.data import pipeline
from gm_jax.errors import UserError
from gm_jax.evaluation import features, likelihood, results
from gm_jax.plotting import densities, images
from gm_jax.runner import config as config_lib
from gm_jax.runner import sample_quality, speed
from gm_jax.runner.run import EVAL_BATCH, Run, reopen, restore
from gm_jax.training import metrics, parallel
from gm_jax.training.state import TrainState
from gm_jax.training.step import make_eval_step
from gm_jax.types import LogProbFn

if TYPE_CHECKING:
    from gm_jax.runner.cli import EvaluateArgs

_DRAWN, _POINTS_DRAWN = 100, 1_000
_CALIBRATION = 1_000  # examples of the validation split, at most


def run(module: str, config_type: type, build: Callable, args: "EvaluateArgs") -> None:
    """Evaluate a split with a checkpoint of the run in a folder; `args` may set anew the fields that only measure."""
    anew = config_lib.given(args, config_lib.measuring_fields(config_type))
    opened = reopen(module, config_type, build, args.workdir, data_dir=args.data_dir, anew=anew)
    state, step = restore(opened, args.checkpoint)
    # First, for it may refuse its weights or the data at once.
    samples = [] if args.features is None else _measure_samples(opened, state, step, args)
    records = measure(opened, state, step, split=args.split, seed=args.seed, batch_size=args.batch_size) + samples
    finish(opened, records + speed.records(opened, state), draw(opened, state, seed=args.seed))


def _measure_samples(run: Run, state: TrainState, step: int, args: "EvaluateArgs") -> list[results.Record]:
    """What the extractor that was asked for says of samples.

    Raises:
        UserError: its weights cannot be had, or the data are not for it.
    """
    extractor = features.load(args.features, args.weights)
    if run.spec.levels is None or len(run.spec.shape) != 3:
        raise UserError(f"{run.spec.name} is not made of images: their features cannot be measured.")
    sampler = sample_quality.Sampler(run, state, seed=args.seed)
    return sample_quality.measure(
        run,
        extractor,
        sampler,
        num_generated=args.num_generated,
        real_split=args.real_split,
        settings={"step": step, "seed": args.seed},
    )


def evaluator(
    run: Run,
    log_prob: LogProbFn,
    *,
    seed: int,
    batch_size: int = EVAL_BATCH,
    before_batch: Callable[[], None] = lambda: None,
) -> Callable:
    """(state, split) -> LikelihoodSummary; compiled once, for batches of one shape."""
    batch_size = -(-batch_size // run.strategy.num_shards) * run.strategy.num_shards
    compiled = run.strategy.compile_eval(make_eval_step(log_prob, seed=seed))

    def batches(split: str) -> Iterator[tuple]:
        for batch in pipeline.eval_batches(run.splits[split], batch_size):
            before_batch()
            yield batch

    def evaluate(state: TrainState, split: str) -> likelihood.LikelihoodSummary:
        return likelihood.evaluate(
            functools.partial(compiled, state.eval_params, state.model_state),
            batches(split),
        )

    return evaluate


def measure(
    run: Run,
    state: TrainState,
    step: int,
    *,
    split: str,
    seed: int,
    batch_size: int = EVAL_BATCH,
    before_batch: Callable[[str], None] = lambda name: None,
) -> list[results.Record]:
    """The records of every log-probability that the experiment names; "nll" is the model's own.

    `before_batch` is called before each batch with the name of what is measured.
    """
    state, found = calibrated(run, state)
    named = dict(run.experiment.evaluations)
    if run.experiment.model.log_prob is not None:
        named = {"nll": run.experiment.model.log_prob, **named}
    spec = run.spec
    records = []
    for name, log_prob in named.items():
        before = functools.partial(before_batch, name)
        summary = evaluator(run, log_prob, seed=seed, batch_size=batch_size, before_batch=before)(state, split)
        records += results.likelihood_records(
            name,
            summary,
            data=spec.name,
            split=split,
            num_dims=int(np.prod(spec.shape)),
            settings={
                **run.experiment.settings,
                **found,
                "step": step,
                "seed": seed,
            },
        )
    if run.experiment.statistics:
        before_batch("statistics")
    for name, value in counted(run, state, seed=seed).items():
        statistic = run.experiment.statistics[name]
        settings = {"step": step, "seed": seed}
        where = (spec.name, spec.measure, "samples", statistic.num_samples)
        records.append(results.Record(name, value, statistic.unit, "estimate", *where, settings))
    return records


def calibrated(run: Run, state: TrainState) -> tuple[TrainState, dict[str, float | bool]]:
    """The state to evaluate, fitted to the validation split where the experiment asks for it; and what was found."""
    if run.experiment.calibrate is None:
        return state, {}
    here, x = parallel.local(state), run.splits["validation"]["x"][:_CALIBRATION]
    model_state, found = jax.jit(run.experiment.calibrate)(here.eval_params, here.model_state, x)
    told = {k: bool(v) if v.dtype == bool else float(v) for k, v in found.items()}
    state = state._replace(model_state=run.strategy.place(model_state))
    return state, {name: value for name, value in told.items() if value is not False}


def counted(run: Run, state: TrainState, *, seed: int) -> dict[str, float]:
    """The experiment's statistics, each on samples of the state."""
    return {
        name: float(statistic.measure(draw_samples(run, state, statistic.num_samples, seed=seed)))
        for name, statistic in run.experiment.statistics.items()
    }


def draw(run: Run, state: TrainState, *, seed: int) -> list[Path]:
    """Write the pictures of a state; returns their paths."""
    spec, key, state = run.spec, jax.random.key(seed), parallel.local(state)
    num, behind = _POINTS_DRAWN if spec.shape == (2,) else _DRAWN, behind_points(run)
    grids = {"samples": images.as_grid(draw_samples(run, state, num, seed=seed))}
    examples = run.fixed_examples()
    for name, picture in run.experiment.pictures.items():
        grids[name] = np.asarray(jax.jit(picture)(state.eval_params, state.model_state, key, examples))
    paths = []
    for name, grid in grids.items():
        paths.append(run.folder.root / f"{name}.png")
        images.draw_grid(paths[-1], grid, spec.levels, behind=behind)
    if run.experiment.plane is not None:
        paths.append(run.folder.root / "density.png")
        bind = lambda fn: functools.partial(jax.jit(fn), state.eval_params, state.model_state)  # noqa: E731
        log_density, push = (fn and bind(fn) for fn in run.experiment.plane)
        densities.draw_density(paths[-1], log_density, run.splits["validation"]["x"], push=push)
    over_time = sorted(run.folder.samples.glob("step-*.png"))
    if over_time:
        paths.append(run.folder.root / "over_time.png")
        steps = {f"step {int(path.stem.removeprefix('step-')):,}": path for path in over_time}
        images.tile(paths[-1], steps)
    lines = metrics.read(run.folder.metrics)
    if lines:
        paths.append(run.folder.root / "curves.png")
        images.draw_curves(paths[-1], metrics.curves(lines), validation_label=_validation_label(run, state))
    return paths


def _validation_label(run: Run, state: TrainState) -> str:
    """Labels the validation curve with the sign, the kind and the measure of its -log p."""
    log_prob, label = run.experiment.validation or run.experiment.model.log_prob, "validation -log p, nats"
    if log_prob is None:
        return label
    example = run.fixed_examples()[:1]
    found = jax.eval_shape(log_prob, state.eval_params, state.model_state, jax.random.key(0), example)
    kind = results.KIND_OF_NLL[found.kind]
    return f"{label} ({results.SIGN_OF_NLL[found.kind]} {kind}, {found.measure})"


def behind_points(run: Run) -> np.ndarray | None:
    """[N, 2] points of the data, to draw others upon; None where the data are no points."""
    return run.splits["validation"]["x"][:_POINTS_DRAWN] if run.spec.shape == (2,) else None


def draw_samples(run: Run, state: TrainState, num: int, *, seed: int, **settings: Any) -> np.ndarray:
    """[num, ...] samples in data space; a process draws them without the others.

    `settings` are the arguments by name of the model's `sample`: a label [num], a temperature.
    """
    state = parallel.local(state)
    sample = jax.jit(run.experiment.model.sample, static_argnums=3)
    return np.asarray(sample(state.eval_params, state.model_state, jax.random.key(seed), num, **settings))


def finish(run: Run, records: list[results.Record], paths: list[Path]) -> None:
    """Print the table and where the pictures are, and add the records to results.json.

    Raises:
        UserError: the results.json that is there is damaged.
    """
    print(results.table(records))
    try:
        earlier = results.read(run.folder.results)
    except (ValueError, TypeError):
        raise UserError(f"{run.folder.results} is damaged: move it away and give the same command again.") from None
    results.write(run.folder.results, results.merge(earlier, records))
    print(f"\n{run.folder.root}: {', '.join(path.name for path in paths)}, {run.folder.results.name}")
