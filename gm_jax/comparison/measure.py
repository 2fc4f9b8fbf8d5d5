"""Trains one family on one data set for a fixed time and measures it: the numbers of one row of the report.

The numbers depend on the kind of data:

    images        likelihood, and distances between samples and data in feature space
    points        likelihood, next to the entropy of the true density, and a picture of the learned density
    small_world   the model's whole distribution, compared with the distribution of the data

An error in one family is reported in its row; the other families are still measured.
"""

import dataclasses
import math
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import signals
from gm_jax.comparison import evaluations, intervals, train_for_time
from gm_jax.config import AdamConfig, ExperimentConfig, OptimizerConfig, SGDConfig, saved
from gm_jax.data import binary_digits, sources, toy
from gm_jax.data.array_cache import Splits
from gm_jax.data.sources import Spec
from gm_jax.evaluation import enumeration, features, kde, sample_metrics
from gm_jax.evaluation.results import Record
from gm_jax.plotting import densities, images
from gm_jax.runner import measure, sample_quality
from gm_jax.runner.run import Run, assemble
from gm_jax.training.state import TrainState
from gm_jax.types import Array, Key, Likelihood

_SMALL_WORLD_SAMPLES = 10_000
THE_DATA = "the data"  # the row of the data themselves
_IMAGES, _POINTS = 64, 2_000  # samples in a picture
_HELD_OUT = 2_000  # most examples of the validation and test splits that are evaluated
_BANDWIDTHS = np.geomspace(0.02, 1.0, 18)


class Taxonomy(NamedTuple):
    """How the field classifies a family.

    Attributes:
        form: "explicit" if the model defines a density, "implicit" if it only draws samples.
        density: what can be computed of it: "exact", "lower bound", "exact up to Z" or "none".
        sampling: how a sample is drawn.
        training: what training does.
        latents: what is drawn or computed beside the data.
    """

    form: Literal["explicit", "implicit"]
    density: str
    sampling: str
    training: str
    latents: str


class Family(NamedTuple):
    """One row of the table of families.

    Attributes:
        name: the name in the literature.
        config: its configuration, for any data.
        settings: kind of data ("images", "points", "small_world") -> fields of the configuration to change. A dict
            changes fields of a section. A family is not trained on kinds that are missing here.
        log_prob_of_states: (config, spec, params) -> [65536] exact log-probabilities of the small world's states, for a
            family whose `log_prob` is only a bound; None for any other family.
        average: how draws of a `log_prob` that is not exact are averaged over their noise in the small world:
            `enumeration.averaged_probability` if exp(log_prob) is an unbiased estimate of the probability, as for
            importance weights and dequantised densities; `enumeration.averaged_bound` if log_prob is an unbiased
            estimate of a bound.
        taxonomy: how the field classifies the family; None for a row that is not on the page's first table.
        evaluations: (configuration, spec) -> evaluations of the network for one sample, one after the other.
    """

    name: str
    config: ExperimentConfig
    settings: Mapping[str, Mapping[str, Any]]
    log_prob_of_states: Callable[[Any, Any, Any], np.ndarray] | None = None
    average: Callable[..., enumeration.StateLogProb] = enumeration.averaged_probability
    taxonomy: Taxonomy | None = None
    evaluations: Callable[[Any, Spec], int] = evaluations.one


class Outcome(NamedTuple):
    """The result of a family on a data set.

    Attributes:
        family: name of the family.
        data: name of the data set.
        error: what went wrong, in one line; None if nothing did.
        records: all measured numbers.
        pictures: "samples" or "density" -> PNG.
        curve: validation over time.
        num_params: number of parameters.
        steps: number of training steps.
        seconds: seconds of training.
        samples_per_second: speed of sampling after compilation.
        evaluations: of the network for one sample.
    """

    family: str
    data: str
    error: str | None = None
    records: tuple[Record, ...] = ()
    pictures: Mapping[str, Path] = types.MappingProxyType({})
    curve: tuple[train_for_time.Moment, ...] = ()
    num_params: int = 0
    steps: int = 0
    seconds: float = 0.0
    samples_per_second: float = 0.0
    evaluations: int = 0


def kind_of(data: str) -> str:
    """Returns the kind of a data set: "images", "points" or "small_world"."""
    if data == binary_digits.SMALL_WORLD:
        return "small_world"
    return "points" if data.startswith(toy.PREFIX) else "images"


def configured(family: Family, data: str, *, seed: int) -> ExperimentConfig:
    """Returns the family's configuration for a data set, with constant learning rates.

    A schedule would need the number of steps, which is not known in advance.
    """
    config = saved.updated(family.config, {"data": {"name": data}, "train": {"seed": seed}})
    return _with_constant_rates(saved.updated(config, family.settings[kind_of(data)]))


def _with_constant_rates(config: Any) -> Any:
    """Returns the configuration with a constant schedule for every optimiser, also in nested parts."""
    if isinstance(config, (OptimizerConfig, AdamConfig, SGDConfig)):
        return dataclasses.replace(config, schedule="constant")
    parts = {name: value for name, value in vars(config).items() if dataclasses.is_dataclass(value)}
    return dataclasses.replace(config, **{name: _with_constant_rates(part) for name, part in parts.items()})


def measure_family(
    family: Family, data: str, *, seconds: float, seed: int, folder: Path, extractor: features.Extractor | None = None
) -> Outcome:
    """Trains a family on a data set for a fixed time and measures it; an exception becomes the outcome's error.

    A signal ends it with KeyboardInterrupt.

    Args:
        family: row of the table of families.
        data: name of the data set.
        seconds: seconds of training.
        seed: seed of training and samples.
        folder: folder for pictures.
        extractor: maps images to features; None leaves out distances in feature space.
    """
    if kind_of(data) not in family.settings:
        return Outcome(family.name, data, error=f"not trained on {kind_of(data).replace('_', ' ')}")
    signals.check()
    try:
        run = _with_short_splits(assemble(configured(family, data, seed=seed), folder))
        return _train_and_measure(family, run, seconds, folder, extractor)
    except Exception as error:  # any error, because the other families must still be measured
        traceback.print_exc()
        message = str(error).strip().splitlines() or ["no message"]
        return Outcome(family.name, data, error=f"failed: {type(error).__name__}: {message[0][:300]}")
    finally:
        jax.clear_caches()  # one process trains tens of models


def _train_and_measure(
    family: Family, run: Run, seconds: float, folder: Path, extractor: features.Extractor | None
) -> Outcome:
    seed, spec = run.config.train.seed, run.spec
    trained = train_for_time.train(run, seconds=seconds)
    state, found = measure.prepared(run, trained.state, seed=seed)
    records = measure.measure_run(run, state, trained.step, split="test", seed=seed, facts=found, before_batch=_check)
    sample = sample_quality.Sampler(run, state, seed=seed)
    per_second = sample.per_second()
    facts = {"step": trained.step, "seed": seed}
    kind, pictures = kind_of(spec.name), {}
    prefix, behind = _file_name(spec.name, family.name), None
    if kind == "images" and extractor is not None:
        records += sample_quality.measure(run, extractor, sample, settings=facts)
    if kind == "points":
        points = sample(2 * _HELD_OUT)
        log_density, more = _log_density(run, state, points, facts)
        records += more
        pictures["density"] = folder / f"{prefix}-density.png"
        behind = run.loaded["validation"]["x"]
        densities.draw_panel(pictures["density"], log_density, images.point_limits(behind))
    log_q = None
    if kind == "small_world":
        p, samples = binary_digits.small_world_probabilities(), sample(_SMALL_WORLD_SAMPLES)
        log_prob = log_prob_of_states(family, run, state, p)
        records += enumeration.measure(p, samples, log_prob, data=spec.name, settings=facts)
        log_q = log_prob.log_q if log_prob is not None and log_prob.kind == "exact" else None
    records += intervals.measure(run, state, log_q, settings=facts, seed=seed)
    records += _speed(run, trained, per_second, facts)
    pictures["samples"] = folder / f"{prefix}-samples.png"
    drawn = images.as_grid(sample(_POINTS if kind == "points" else _IMAGES))
    images.draw_grid(pictures["samples"], drawn, spec.levels, behind=behind)
    named = tuple(record._replace(settings={"family": family.name, **record.settings}) for record in records)
    return Outcome(
        family.name,
        spec.name,
        records=named,
        pictures=pictures,
        curve=tuple(trained.curve),
        num_params=sum(leaf.size for leaf in jax.tree.leaves(state.eval_params)),
        steps=trained.steps,
        seconds=trained.seconds,
        samples_per_second=per_second,
        evaluations=family.evaluations(run.config, spec),
    )


def _speed(
    run: Run, trained: train_for_time.Trained, samples_per_second: float, facts: Mapping[str, Any]
) -> list[Record]:
    """Returns how long the training was, in seconds and steps, and how fast the model draws."""
    spec, examples = run.spec, len(run.loaded["train"]["x"])
    rows = [
        ("training", trained.seconds, "s", "train", examples),
        ("steps", float(trained.steps), "steps", "train", examples),
        ("samples_per_second", samples_per_second, "samples/s", "samples", 0),
    ]
    return [
        Record(name, value, unit, "score", spec.name, spec.measure, split, count, dict(facts))
        for name, value, unit, split, count in rows
    ]


def _check(name: str) -> None:
    signals.check()


def _with_short_splits(run: Run) -> Run:
    """Returns the run with at most `_HELD_OUT` validation and test examples, which are enough and save time."""
    splits = {
        split: arrays if split == "train" else {name: array[:_HELD_OUT] for name, array in arrays.items()}
        for split, arrays in run.loaded.items()
    }
    return run._replace(splits=splits)


def _log_density(
    run: Run, state: TrainState, points: np.ndarray, facts: Mapping[str, Any]
) -> tuple[densities.LogDensityFn, list[Record]]:
    """Returns the learned density and, for a family without one, its likelihood by kernels on samples [N, 2]."""
    log_prob = run.experiment.model.log_prob
    if log_prob is not None:
        compiled, key = jax.jit(log_prob), jax.random.key(0)
        return lambda x: compiled(state.eval_params, state.model_state, key, x).log_prob, []
    chosen = kde.choose_bandwidth(jnp.asarray(run.loaded["validation"]["x"]), points, jnp.asarray(_BANDWIDTHS))
    log_density = kde.log_density(jnp.asarray(run.loaded["test"]["x"]), points, chosen.bandwidth)
    record = Record(
        name="nll",
        value=-float(np.mean(log_density)),
        unit="nats",
        kind="estimate",
        data=run.spec.name,
        measure="continuous",
        split="test",
        examples=len(log_density),
        settings={
            "space": f"R^{points.shape[1]}",
            **facts,
            "kernel density, centres": len(points),
            "bandwidth": float(chosen.bandwidth),
        },
    )
    return lambda x: kde.log_density(x, points, chosen.bandwidth), [record]


def log_prob_of_states(family: Family, run: Run, state: TrainState, p: np.ndarray) -> enumeration.StateLogProb | None:
    """Computes a model's log-probabilities of the small world's states; None if it has only a density or none at all.

    Args:
        family: row of the table of families.
        run: the trained run.
        state: state to evaluate.
        p: [65536] probabilities of the states under the data.
    """
    if family.log_prob_of_states is not None:
        log_q = family.log_prob_of_states(run.config, run.spec, state.eval_params)
        return enumeration.StateLogProb(log_q, "exact", "quadrature")
    model_log_prob = run.experiment.model.log_prob
    if model_log_prob is None:
        return None
    states = enumeration.all_states(16).reshape(-1, *run.spec.shape)

    @jax.jit
    def log_prob(x: Array, key: Key) -> Likelihood:
        return model_log_prob(state.eval_params, state.model_state, key, x)

    likelihood = jax.eval_shape(log_prob, states[:1], jax.random.key(0))
    if likelihood.measure == "continuous":  # a density around the states is not their probability
        return None
    return (
        enumeration.enumerated(log_prob, states) if likelihood.kind == "exact" else family.average(log_prob, states, p)
    )


def measure_data(data: str, folder: Path, extractor: features.Extractor | None = None) -> Outcome:
    """Measures the data themselves: the reference scores, which a model can beat only by chance.

    These are the entropy, if it is known, and the distances between held-out and training images.

    Args:
        data: name of the data set.
        folder: folder for pictures.
        extractor: maps images to features; None leaves out distances in feature space.
    """
    spec, splits = sources.load(data)
    kind, rows = kind_of(data), []
    if kind == "points":
        rows = [("nll", toy.toy_entropy(data))]
    if kind == "small_world":
        entropy = enumeration.entropy(binary_digits.small_world_probabilities())
        rows = [("nll_of_world", entropy), ("kl_to_world", 0.0)]
    settings = {"family": THE_DATA} | ({"space": f"R^{math.prod(spec.shape)}"} if kind == "points" else {})
    records = [
        Record(name, value, "nats", "exact", data, spec.measure, "the distribution itself", 0, settings)
        for name, value in rows
    ]
    if kind == "images" and extractor is not None:
        held_out = np.concatenate([splits["validation"]["x"], splits["test"]["x"]])
        levels = spec.levels or 256  # continuous values are refused by their dtype
        real, other = (
            sample_metrics.gather(extractor, features.as_images(x, extractor, levels=levels), measure=spec.measure)
            for x in (splits["train"]["x"], held_out)
        )
        settings = {**settings, "generated": "validation and test"}
        records = sample_metrics.measure(extractor, real, other, data=data, real_split="train", settings=settings)
    return Outcome(THE_DATA, data, records=tuple(records), pictures=_pictures_of_data(spec, splits, folder))


def _pictures_of_data(spec: sources.Spec, splits: Splits, folder: Path) -> dict[str, Path]:
    """Draws the data as the samples of a family are drawn."""
    paths = {"samples": folder / f"{_file_name(spec.name, THE_DATA)}-samples.png"}
    if kind_of(spec.name) == "points":
        limits = images.point_limits(splits["validation"]["x"])
        paths = {"density": folder / f"{_file_name(spec.name, THE_DATA)}-density.png", **paths}
        densities.draw_panel(paths["density"], toy.toy_log_density(spec.name), limits)
        images.draw_grid(paths["samples"], images.as_grid(splits["train"]["x"][:_POINTS]), None)
    else:
        images.draw_grid(paths["samples"], images.as_grid(splits["train"]["x"][:_IMAGES]), spec.levels)
    return paths


def _file_name(data: str, family: str) -> str:
    return f"{data}-{family}".replace(":", "-").replace(" ", "-")
