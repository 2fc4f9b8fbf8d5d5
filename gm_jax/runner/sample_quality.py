"""What the samples of a run are worth: drawn in batches, held against the run's data by an extractor's features."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gm_jax.evaluation import features, sample_metrics
from gm_jax.evaluation.results import Record
from gm_jax.runner.run import Run
from gm_jax.training import parallel
from gm_jax.training.state import TrainState

_BATCH = 500  # samples at a time
_FEATURE_BATCH = 100


class Sampler:
    """Samples of a state, compiled once for batches of one size: the same for the same seed."""

    def __init__(self, run: Run, state: TrainState, *, seed: int):
        state = parallel.local(state)
        drawn = jax.jit(run.experiment.model.sample, static_argnums=3)
        self._draw = lambda key: drawn(state.eval_params, state.model_state, key, _BATCH)
        self._key = jax.random.key(seed)

    def __call__(self, num: int) -> np.ndarray:
        """[num, ...] samples in data space; the first ones do not depend on their number."""
        keys = (jax.random.fold_in(self._key, k) for k in range(-(-num // _BATCH)))
        return np.concatenate([np.asarray(self._draw(key)) for key in keys])[:num]

    def per_second(self, *, seconds: float = 0.3) -> float:
        """Samples a second, once compiled, in batches of 500."""
        jax.block_until_ready(self._draw(self._key))
        started, calls = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            jax.block_until_ready(self._draw(self._key))
            calls += 1
        return calls * _BATCH / (time.perf_counter() - started)


def measure(
    run: Run,
    extractor: features.Extractor,
    sampler: Sampler,
    *,
    num_generated: int | None = None,
    real_split: str = "train",
    settings: Mapping[str, Any],
) -> list[Record]:
    """Distances and scores of samples against a split, `evaluation.sample_metrics.measure`.

    Args:
        run: with data of images.
        extractor: of features.
        sampler: of the run's samples.
        num_generated: how many; None for as many as the split has.
        real_split: what they are held against.
        settings: what every result must carry.
    Raises:
        UserError: the images are not of the extractor's size, or too few.
    """
    levels, x = run.spec.levels, run.splits[real_split]["x"]
    real = features.as_images(x, extractor, levels=levels)
    generated = features.as_images(sampler(num_generated or len(x)), extractor, levels=levels)
    compiled = run.strategy.compile_eval(lambda params, _, index, images: extractor.apply(params, images))
    shards = run.strategy.num_shards
    gathered = [
        sample_metrics.gather(
            extractor,
            images,
            batch_size=-(-_FEATURE_BATCH // shards) * shards,
            apply=lambda params, batch: compiled(params, {}, 0, batch),
        )
        for images in (real, generated)
    ]
    return sample_metrics.measure(
        extractor, *gathered, data=run.spec.name, measure=run.spec.measure, real_split=real_split, settings=settings
    )
