"""Samples of a run, drawn in batches and compared with its data by the features of an extractor."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gm_jax import signals
from gm_jax.errors import UserError
from gm_jax.evaluation import features, sample_metrics
from gm_jax.evaluation.results import Record
from gm_jax.runner.run import Run, abstract_batch
from gm_jax.runner.samples import BATCH
from gm_jax.training import parallel
from gm_jax.training.state import TrainState

_FEATURE_BATCH = 100
_OBSERVING = 0xFFFFFFFD  # a key of its own, so that real images share no noise with samples


class Sampler:
    """Draws samples of a state, compiled once for batches of one size: the same samples for the same seed."""

    def __init__(self, run: Run, state: TrainState, *, seed: int):
        state = parallel.local(state)
        drawn = jax.jit(run.experiment.model.sample, static_argnums=3)
        self._draw = lambda key: drawn(state.eval_params, state.model_state, key, BATCH)
        self._key = jax.random.key(seed)

    def __call__(self, num: int) -> np.ndarray:
        """Returns [num, ...] samples in data space; the first ones do not depend on their number."""
        drawn = []
        for k in range(-(-num // BATCH)):
            signals.check()
            drawn.append(np.asarray(self._draw(jax.random.fold_in(self._key, k))))
        return np.concatenate(drawn)[:num]

    def per_second(self, *, seconds: float = 0.3) -> float:
        """Returns samples per second, without compiling, in batches of 500."""
        jax.block_until_ready(self._draw(self._key))
        started, calls = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            jax.block_until_ready(self._draw(self._key))
            calls += 1
        return calls * BATCH / (time.perf_counter() - started)


def measure(
    run: Run,
    extractor: features.Extractor,
    sampler: Sampler,
    *,
    num_generated: int | None = None,
    real_split: str = "train",
    settings: Mapping[str, Any],
) -> list[Record]:
    """Returns distances and scores of samples compared with a split, see `evaluation.sample_metrics.measure`.

    Args:
        run: with data of images.
        extractor: of features.
        sampler: of the run's samples.
        num_generated: how many samples; None for as many as the split has.
        real_split: what they are compared with.
        settings: what every result must carry; "seed" is also the seed of the noise in the real images.
    Raises:
        UserError: the data are not images, the images have another size than the extractor's, or are too few; or the
            experiment does not name what its samples are compared with.
    """
    levels = run.spec.levels
    if levels is None or len(run.spec.shape) != 3:
        raise UserError(f"{run.spec.name} is not made of images, whose features could be measured: omit --features.")
    x = observed(run, real_split, seed=settings["seed"])
    real = features.as_images(x, extractor, levels=levels)
    generated = features.as_images(sampler(num_generated or len(x)), extractor, levels=levels)
    base_measure = observed_measure(run)
    compiled = run.strategy.compile_eval(lambda params, _, index, images: extractor.apply(params, images))
    shards = run.strategy.num_shards
    gathered = [
        sample_metrics.gather(
            extractor,
            images,
            measure=base_measure,
            batch_size=-(-_FEATURE_BATCH // shards) * shards,
            apply=lambda params, batch: compiled(params, {}, 0, batch),
        )
        for images in (real, generated)
    ]
    return sample_metrics.measure(extractor, *gathered, data=run.spec.name, real_split=real_split, settings=settings)


def observed(run: Run, split: str, *, seed: int) -> np.ndarray:
    """Returns a split's examples as the model observes them, e.g. binarised, in the form in which they are shipped.

    Args:
        run: with data.
        split: of the data.
        seed: of the noise.
    """
    x, observation = run.loaded[split]["x"], run.experiment.observation
    if observation is None:
        return x
    observe, key = jax.jit(observation.observe), jax.random.fold_in(jax.random.key(seed), _OBSERVING)
    batches = range(0, len(x), BATCH)
    return np.concatenate(
        [np.asarray(observe(jax.random.fold_in(key, start), x[start : start + BATCH])) for start in batches]
    )


def observed_measure(run: Run) -> str:
    """Returns the base measure of a run's samples, which is the measure of the likelihood if that is of levels.

    Raises:
        UserError: the likelihood has another measure than the data, and the experiment has no observation.
    """
    if run.experiment.observation is not None:
        return run.experiment.observation.measure
    log_prob = run.experiment.model.log_prob
    if log_prob is not None:
        state, x = run.abstract_state(), abstract_batch(run.spec, 1)["x"]
        found = jax.eval_shape(log_prob, state.params, state.model_state, jax.random.key(0), x).measure
        # Samples of a density are rounded to the levels of the data.
        if found not in ("continuous", run.spec.measure):
            raise UserError(
                f"the model's probabilities are {found} and {run.spec.name} has {run.spec.measure}: give the "
                "experiment an `observation`, with which its samples are compared."
            )
    return run.spec.measure
