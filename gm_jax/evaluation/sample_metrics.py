"""Samples against real data on one set of features: every distance and score, as records that say what they are of.

A record's name carries the extractor, `frechet[digits-cnn]`, its settings the hash of its weights, the resize rule and
both numbers of samples. Fewer samples make another number, not a noisier one: compare at equal counts.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gm_jax.evaluation import frechet, inception_score, kernel_distance, mode_coverage, precision_recall
from gm_jax.evaluation.features import Extractor, Features
from gm_jax.evaluation.results import Record
from gm_jax.types import Array, PyTree

_MOST_FOR_NEIGHBOURS = 10_000  # of either set: neighbours are found among all pairs
_SUBSETS, _SUBSET_SIZE, _SPLITS = 100, 1000, 10  # as the literature has them


class Gathered(NamedTuple):
    """What is kept of a set of images.

    Attributes:
        moments: of the features.
        features: [N, D] float32.
        log_probs: [N, K] float32.
    """

    moments: frechet.Moments
    features: np.ndarray
    log_probs: np.ndarray


def gather(
    extractor: Extractor,
    images: np.ndarray,
    *,
    batch_size: int = 100,
    apply: Callable[[PyTree, Array], Features] | None = None,
) -> Gathered:
    """Features of all images, in batches of one shape, the last one padded.

    Args:
        extractor: what makes them.
        images: [N, H, W, C] uint8, 0..255 (`features.as_images`).
        batch_size: at a time.
        apply: `extractor.apply`, compiled; by default for one device.
    """
    apply = jax.jit(extractor.apply) if apply is None else apply
    moments, kept = frechet.no_moments(extractor.num_features), []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
        features = apply(extractor.params, padded)
        moments = frechet.add_batch(moments, features.features, np.arange(batch_size) < len(batch))
        kept.append([np.asarray(leaf)[: len(batch)] for leaf in features])
    return Gathered(moments, *(np.concatenate(parts) for parts in zip(*kept, strict=True)))


def records(
    extractor: Extractor,
    real: Gathered,
    generated: Gathered,
    *,
    data: str,
    measure: str,
    real_split: str,
    settings: Mapping[str, Any],
    seed: int = 0,
) -> list[Record]:
    """Frechet and kernel distance, precision and recall, Inception Score and classes covered of the generated set.

    Args:
        extractor: of both sets' features.
        real: the data.
        generated: the samples.
        data: name of the data set.
        measure: what its values are, e.g. "256 levels".
        real_split: which split the data are.
        settings: what else the numbers need.
        seed: of the shuffles and subsets.
    Raises:
        UserError: a set is too small.
    """
    counts = {"num_real": len(real.features), "num_generated": len(generated.features)}
    fewest = min(counts.values())
    distance = frechet.frechet_distance(real.moments, generated.moments)
    kernel = kernel_distance.subset_kernel_distance(
        real.features,
        generated.features,
        num_subsets=_SUBSETS,
        subset_size=min(_SUBSET_SIZE, fewest),
        seed=seed,
    )
    near = [x.features[:_MOST_FOR_NEIGHBOURS] for x in (real, generated)]
    shares = precision_recall.precision_recall(*near)
    neighbours = {"neighbour": shares.neighbour, "num_real": len(near[0]), "num_generated": len(near[1])}
    score = inception_score.inception_score(
        generated.log_probs, num_splits=min(_SPLITS, len(generated.log_probs) // 2), seed=seed
    )
    coverage = mode_coverage.class_coverage(real.log_probs, generated.log_probs)
    subsets = {"standard_deviation": kernel.standard_deviation, "subsets": f"{_SUBSETS} of {kernel.subset_size}"}
    splits = {"standard_deviation": score.standard_deviation, "splits": score.num_splits}
    rows = [
        ("frechet", distance, "squared feature distance", counts),
        ("kernel_distance", kernel.mean, "squared MMD", {**counts, **subsets}),
        ("precision", shares.precision, "share", neighbours),
        ("recall", shares.recall, "share", neighbours),
        ("inception_score", score.mean, "classes", {"num_generated": score.num_examples, **splits}),
        ("classes_covered", coverage.classes_covered, f"of {coverage.num_classes}", counts),
    ]
    return [
        Record(
            name=f"{name}[{extractor.name}]",
            value=float(value),
            unit=unit,
            kind="score",
            data=data,
            measure=measure,
            split=real_split,
            examples=counts["num_generated"],
            settings={**settings, **extractor.facts, **own},
        )
        for name, value, unit, own in rows
    ]
