"""One family on one data set, trained for a time and measured as every other: the numbers of one row of a page.

Three kinds of data ask for different numbers: images (likelihood, and distances of samples in feature space), points in
the plane (a likelihood beside the density's own entropy, and a picture of it), and the exact small world, in which a
model's whole distribution is held against the data's.

Whatever goes wrong with a family is its own outcome: it is told in its row, and the others go on.
"""

import dataclasses
import importlib
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.comparison import train_for_time
from gm_jax.data import binary_digits, sources, toy
from gm_jax.errors import UserError
from gm_jax.evaluation import enumeration, features, kde, sample_metrics
from gm_jax.evaluation.results import Record
from gm_jax.plotting import densities, images
from gm_jax.runner import evaluate, sample_quality
from gm_jax.runner.config import OptimizerConfig
from gm_jax.runner.experiment import Plane
from gm_jax.runner.run import Run, assemble

_SMALL_WORLD_SAMPLES = 10_000
_NOISE_DRAWS = 256  # of a family whose likelihood averages over noise,
_BOUND_DRAWS = 4  # and of one whose bound does
_ENUMERATED = 4096  # states at a time
_HELD_OUT = 2_000  # examples of validation and test that are evaluated, at most
_BANDWIDTHS = np.geomspace(0.02, 1.0, 18)


class Family(NamedTuple):
    """A row of the table of families.

    Attributes:
        name: as the literature has it.
        module: the experiment, with its `Config` and `build`, e.g. "experiments.vae".
        settings: kind of data ("images", "points", "small_world") -> fields of `Config` that are not its defaults;
            without a kind, the family is not for such data. A dict sets fields of a nested part.
        log_prob_of_states: (config, spec, params) -> [65536] log-probabilities of the small world's states, for a
            family whose own log_prob is a bound and whose likelihood can yet be had; None for any other.
        averages_bounds: a draw of its log_prob is a bound on average, and no more: its mean over the noise stays a
            bound. Otherwise the draw's exponential is the probability on average, as of importance weights and of
            dequantised densities.
    """

    name: str
    module: str
    settings: Mapping[str, Mapping[str, Any]]
    log_prob_of_states: Callable[[Any, Any, Any], np.ndarray] | None = None
    averages_bounds: bool = False


class Outcome(NamedTuple):
    """What came of a family on a data set.

    Attributes:
        family: its name.
        data: name of the data set.
        error: what went wrong, in a line; None where nothing did.
        records: everything measured.
        pictures: "samples" or "density" -> PNG.
        curve: validation over time.
        num_params: parameters.
        steps: of training.
        seconds: of training.
        samples_per_second: once compiled.
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


def kind_of(data: str) -> str:
    """What a data set is to a comparison: "images", "points" or "small_world"."""
    if data == binary_digits.SMALL_WORLD:
        return "small_world"
    return "points" if data.startswith(toy.PREFIX) else "images"


def with_settings(config: Any, settings: Mapping[str, Any]) -> Any:
    """A configuration with some of its fields set; a dict sets fields of a nested configuration."""
    for name, value in settings.items():
        if not hasattr(config, name):
            raise UserError(f"{type(config).__module__} has no setting {name}.")
        nested = isinstance(value, Mapping)
        config = dataclasses.replace(config, **{name: with_settings(getattr(config, name), value) if nested else value})
    return config


def configured(family: Family, data: str, *, seed: int) -> tuple[Any, Callable]:
    """The family's configuration and `build` for a data set: learning rates constant, for the end is not known."""
    module = importlib.import_module(family.module)
    config = with_settings(module.Config(), {"data": {"name": data}, "train": {"seed": seed}})
    return _with_constant_rates(with_settings(config, family.settings[kind_of(data)])), module.build


def _with_constant_rates(config: Any) -> Any:
    """A configuration whose every optimiser, in its parts too, has a constant schedule."""
    if isinstance(config, OptimizerConfig):
        return dataclasses.replace(config, schedule="constant")
    parts = {name: value for name, value in vars(config).items() if dataclasses.is_dataclass(value)}
    return dataclasses.replace(config, **{name: _with_constant_rates(part) for name, part in parts.items()})


def outcome(
    family: Family, data: str, *, seconds: float, seed: int, folder: Path, extractor: features.Extractor | None = None
) -> Outcome:
    """Train a family on a data set for a time and measure it; what goes wrong is in the outcome.

    Args:
        family: which.
        data: name of the data set.
        seconds: of training.
        seed: of training and samples.
        folder: where pictures go.
        extractor: of images' features.
    """
    if kind_of(data) not in family.settings:
        return Outcome(family.name, data, error=f"not for {kind_of(data).replace('_', ' ')}")
    try:
        config, build = configured(family, data, seed=seed)
        return _measured(family, _held_to_size(assemble(config, build, folder)), seconds, folder, extractor)
    except Exception as error:  # whatever it is: the others go on
        traceback.print_exc()
        said = str(error).strip().splitlines() or ["no message"]
        return Outcome(family.name, data, error=f"failed: {type(error).__name__}: {said[0][:300]}")
    finally:
        jax.clear_caches()  # tens of models in one process


def _measured(family: Family, run: Run, seconds: float, folder: Path, extractor: features.Extractor | None) -> Outcome:
    seed, spec = run.config.train.seed, run.spec
    trained = train_for_time.train(run, seconds=seconds)
    state, _ = evaluate.calibrated(run, trained.state)
    records = evaluate.measure(run, state, trained.step, split="test", seed=seed)
    sample = sample_quality.Sampler(run, state, seed=seed)
    per_second = sample.per_second()
    facts = {"step": trained.step, "seed": seed}
    kind, shown, prefix = kind_of(spec.name), {}, f"{spec.name}-{family.name}".replace(":", "-").replace(" ", "-")
    if kind == "images" and extractor is not None:
        records += sample_quality.measure(run, extractor, sample, settings=facts)
    if kind == "points":
        points = sample(2 * _HELD_OUT)
        plane, more = _plane(run, points, facts)
        records += more
        shown["density"] = folder / f"{prefix}-density.png"
        densities.draw(shown["density"], plane, state.eval_params, state.model_state, run.splits["validation"]["x"])
    if kind == "small_world":
        records += _small_world(family, run, state, sample, facts)
    shown["samples"] = folder / f"{prefix}-samples.png"
    images.draw(shown["samples"], images.as_grid(sample(2000 if kind == "points" else 100)), spec)
    named = tuple(record._replace(settings={"family": family.name, **record.settings}) for record in records)
    return Outcome(
        family.name,
        spec.name,
        records=named,
        pictures=shown,
        curve=tuple(trained.curve),
        num_params=sum(leaf.size for leaf in jax.tree.leaves(state.eval_params)),
        steps=trained.steps,
        seconds=trained.seconds,
        samples_per_second=per_second,
    )


def _held_to_size(run: Run) -> Run:
    """The run with its held-out splits cut short: draws of a known density are as good by thousands as by tens."""
    splits = {
        split: arrays if split == "train" else {name: array[:_HELD_OUT] for name, array in arrays.items()}
        for split, arrays in run.splits.items()
    }
    return run._replace(splits=splits)


def _plane(run: Run, points: np.ndarray, facts: dict) -> tuple[Plane, list[Record]]:
    """The learned density, and the likelihood of a family that has none but its samples."""
    if run.experiment.plane is not None:
        return Plane(run.experiment.plane.log_density), []
    log_prob = run.experiment.model.log_prob
    if log_prob is not None:
        key = jax.random.key(0)
        return Plane(lambda params, model_state, x: log_prob(params, model_state, key, x).log_prob), []
    chosen = kde.choose_bandwidth(jnp.asarray(run.splits["validation"]["x"]), points, jnp.asarray(_BANDWIDTHS))
    log_density = kde.log_density(jnp.asarray(run.splits["test"]["x"]), points, chosen.bandwidth)
    record = Record(
        name="nll",
        value=-float(np.mean(log_density)),
        unit="nats",
        kind="estimate",
        data=run.spec.name,
        measure="continuous",
        split="test",
        examples=len(log_density),
        settings={**facts, "kernel density, centres": len(points), "bandwidth": float(chosen.bandwidth)},
    )
    return Plane(lambda params, model_state, x: kde.log_density(x, points, chosen.bandwidth)), [record]


def _small_world(family: Family, run: Run, state, sample: Callable, facts: dict) -> list[Record]:
    """The exact numbers: what the model costs by its own distribution, and whether its sampler draws from it."""
    p = binary_digits.small_world_probabilities()
    seen = enumeration.frequencies(sample(_SMALL_WORLD_SAMPLES))
    rows = [("tv_samples_to_data", enumeration.total_variation(seen, p), "total variation", "score", {})]
    log_q, kind, way = log_probs_of_states(family, run, state, p)
    if log_q is not None:
        rows.append(("nll_of_world", enumeration.cross_entropy(p, log_q), "nats", kind, {"by": way}))
        rows.append(("kl_to_world", enumeration.kl_divergence(p, log_q), "nats", kind, {"by": way}))
    if log_q is not None and kind == "exact":
        q = np.exp(log_q)
        mean, deviation = enumeration.expected_total_variation(q, _SMALL_WORLD_SAMPLES)
        expected = {"of_exact_draws": mean, "of_exact_draws_sd": deviation, "sum_of_q": float(q.sum())}
        rows.append(("tv_samples_to_model", enumeration.total_variation(seen, q), "total variation", "score", expected))
    return [
        Record(
            name=name,
            value=value if np.isfinite(value) else None,
            unit=unit,
            kind=kind,
            data=run.spec.name,
            measure="binary",
            split="the distribution itself",
            examples=_SMALL_WORLD_SAMPLES if name.startswith("tv") else len(p),
            settings={**facts, **settings},
        )
        for name, value, unit, kind, settings in rows
    ]


def log_probs_of_states(family: Family, run: Run, state, p: np.ndarray) -> tuple[np.ndarray | None, str, str]:
    """A model's log-probabilities of all states, what kind of statement they are, and how they were had.

    Where they are an average over noise, only those of states that occur are computed; the others are NaN.
    """
    if family.log_prob_of_states is not None:
        return family.log_prob_of_states(run.config, run.spec, state.eval_params), "exact", "quadrature"
    if run.experiment.model.log_prob is None:
        return None, "", ""
    states = enumeration.all_states(16).reshape(-1, *run.spec.shape)

    @jax.jit
    def log_prob(x, key):
        return run.experiment.model.log_prob(state.eval_params, state.model_state, key, x)

    likelihood = jax.eval_shape(log_prob, states[:_ENUMERATED], jax.random.key(0))
    if likelihood.measure == "continuous":  # a density around the states, not their probability
        return None, "", ""
    if likelihood.kind == "exact":
        key, chunks = jax.random.key(0), range(0, len(states), _ENUMERATED)
        all_log_q = [np.asarray(log_prob(states[k : k + _ENUMERATED], key).log_prob, np.float64) for k in chunks]
        return np.concatenate(all_log_q), "exact", "enumeration"
    occur = np.flatnonzero(p)
    num_draws = _BOUND_DRAWS if family.averages_bounds else _NOISE_DRAWS
    keys = jax.random.split(jax.random.key(0), num_draws)
    draws = np.stack([np.asarray(log_prob(states[occur], key).log_prob, np.float64) for key in keys])
    log_q, way = np.full(len(p), np.nan), f"mean over {num_draws} draws of the noise"
    if family.averages_bounds:
        log_q[occur] = draws.mean(axis=0)
        return log_q, likelihood.kind, way
    log_q[occur] = np.logaddexp.reduce(draws, axis=0) - np.log(num_draws)
    return log_q, "estimate", way


def reference(data: str, extractor: features.Extractor | None = None) -> Outcome:
    """The data themselves as a row: what no model can beat but by chance.

    Their entropy where it is known; held-out images against the training split, fewer than a model's samples.
    """
    spec, splits = sources.load(data)
    kind, rows = kind_of(data), []
    if kind == "points":
        rows = [("nll", toy.toy_entropy(data))]
    if kind == "small_world":
        entropy = enumeration.entropy(binary_digits.small_world_probabilities())
        rows = [("nll_of_world", entropy), ("kl_to_world", 0.0)]
    settings = {"family": "the data"}
    records = [
        Record(name, value, "nats", "exact", data, spec.measure, "the distribution itself", 0, settings)
        for name, value in rows
    ]
    if kind == "images" and extractor is not None:
        held_out = np.concatenate([splits["validation"]["x"], splits["test"]["x"]])
        real, other = (
            sample_metrics.gather(extractor, features.as_images(x, extractor, levels=spec.levels))
            for x in (splits["train"]["x"], held_out)
        )
        settings = {**settings, "generated": "validation and test"}
        records = sample_metrics.measure(
            extractor, real, other, data=data, measure=spec.measure, real_split="train", settings=settings
        )
    return Outcome("the data", data, records=tuple(records))
