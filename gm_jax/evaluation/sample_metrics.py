"""All distances and scores between samples and real data, from the features of one extractor, as records.

The name of a record carries the extractor, `frechet[digits-cnn]`; its settings carry the hash of the weights, the
resize rule and both numbers of samples. The number of samples changes the expected value, not only the noise: compare
results only at equal numbers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gm_jax import signals
from gm_jax.evaluation import frechet, inception_score, kernel_distance, mode_coverage, precision_recall
from gm_jax.evaluation.features import Extractor, Features, as_images, load
from gm_jax.evaluation.results import Record
from gm_jax.ops.levels import measure as levels_measure
from gm_jax.types import PyTree

_MOST_FOR_NEIGHBOURS = 10_000  # of each set, because neighbours are searched among all pairs
_SUBSETS, _SUBSET_SIZE, _SPLITS = 100, 1000, 10  # the literature's values


class Gathered(NamedTuple):
    """The features of a set of images.

    Attributes:
        measure: base measure of the images, e.g. "binary" or "256 levels"; only equal ones are compared.
        moments: moments of the features.
        features: [N, D] float32.
        log_probs: [N, K] float32.
    """

    measure: str
    moments: frechet.Moments
    features: np.ndarray
    log_probs: np.ndarray


class Score(NamedTuple):
    """One number about samples, before it becomes a record.

    Attributes:
        name: e.g. "frechet".
        value: the number.
        unit: e.g. "squared feature distance".
        settings: what else the reader needs to know about this number.
    """

    name: str
    value: float
    unit: str
    settings: Mapping[str, Any]


def gather(
    extractor: Extractor,
    images: np.ndarray,
    *,
    measure: str,
    batch_size: int = 100,
    apply: Callable[[PyTree, np.ndarray], Features] | None = None,
) -> Gathered:
    """Computes the features of all images in batches of one shape; the last batch is padded.

    Args:
        extractor: maps images to features.
        images: [N, H, W, C] uint8, 0..255 (`features.as_images`).
        measure: base measure of the images, e.g. "binary" or "256 levels".
        batch_size: images at a time.
        apply: `extractor.apply`, compiled; by default compiled here for one device.
    Raises:
        ValueError: binary images have other values than 0 and 255.
    """
    if measure == "binary" and not np.isin(images, (0, 255)).all():
        raise ValueError("the images are said to be binary, and have other values than 0 and 255")
    apply = jax.jit(extractor.apply) if apply is None else apply
    moments, kept = frechet.no_moments(extractor.num_features), []
    for start in range(0, len(images), batch_size):
        signals.check()
        batch = images[start : start + batch_size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
        features = apply(extractor.params, padded)
        moments = frechet.add_batch(moments, features.features, np.arange(batch_size) < len(batch))
        kept.append([np.asarray(leaf)[: len(batch)] for leaf in features])
    return Gathered(measure, moments, *(np.concatenate(parts) for parts in zip(*kept, strict=True)))


def scores(real: Gathered, generated: Gathered, *, seed: int = 0) -> list[Score]:
    """Computes Frechet and kernel distance, precision and recall, Inception Score and class coverage.

    Args:
        real: features of real images.
        generated: features of samples.
        seed: seed of the shuffles and subsets.
    Raises:
        UserError: a set is too small.
        ValueError: the sets have different measures, e.g. binary samples and grey images.
    """
    if real.measure != generated.measure:
        raise ValueError(f"{real.measure} and {generated.measure} images cannot be compared: prepare both alike")
    counts = {"num_real": len(real.features), "num_generated": len(generated.features)}
    distance = frechet.frechet_distance(real.moments, generated.moments)
    kernel = kernel_distance.subset_kernel_distance(
        real.features,
        generated.features,
        num_subsets=_SUBSETS,
        subset_size=min(_SUBSET_SIZE, *counts.values()),
        seed=seed,
    )
    near = [x.features[:_MOST_FOR_NEIGHBOURS] for x in (real, generated)]
    shares = precision_recall.precision_recall(*near)
    neighbours = {"neighbour": shares.neighbour, "num_real": len(near[0]), "num_generated": len(near[1])}
    inception = inception_score.inception_score(
        generated.log_probs, num_splits=min(_SPLITS, len(generated.log_probs) // 2), seed=seed
    )
    coverage = mode_coverage.class_coverage(real.log_probs, generated.log_probs)
    subsets = {**_spread(kernel), "subsets": f"{_SUBSETS} of {kernel.subset_size}"}
    splits = {**_spread(inception), "splits": inception.num_splits}
    return [
        Score("frechet", distance, "squared feature distance", counts),
        Score("kernel_distance", kernel.mean, "squared MMD", {**counts, **subsets}),
        Score("precision", shares.precision, "share", neighbours),
        Score("recall", shares.recall, "share", neighbours),
        Score("inception_score", inception.mean, "classes", {"num_generated": inception.num_examples, **splits}),
        Score("classes_covered", coverage.classes_covered, f"of {coverage.num_classes}", counts),
    ]


def compare(
    features: str | Extractor,
    real: np.ndarray,
    generated: np.ndarray,
    *,
    levels: int = 256,
    weights: Path | None = None,
    seed: int = 0,
) -> list[Score]:
    """Compares two arrays of images in one call: `features.load`, `gather` for both, `scores`.

    Args:
        features: an extractor or its name, e.g. "digits-cnn"; "inception" needs `weights`.
        real: [N, H, W, C] integer levels 0 .. levels - 1.
        generated: [M, H, W, C], in the same levels. Prepare both alike: binary samples are compared with binary data.
        levels: number of levels of both.
        weights: file of weights of "inception".
        seed: seed of the shuffles and subsets.
    Raises:
        UserError: there is no such extractor, the images do not fit it, or a set is too small.
    """
    extractor = load(features, weights) if isinstance(features, str) else features
    gathered = [
        gather(extractor, as_images(x, extractor, levels=levels), measure=levels_measure(levels))
        for x in (real, generated)
    ]
    return scores(*gathered, seed=seed)


def measure(
    extractor: Extractor,
    real: Gathered,
    generated: Gathered,
    *,
    data: str,
    real_split: str,
    settings: Mapping[str, Any],
    seed: int = 0,
) -> list[Record]:
    """Returns the `scores` of the generated set as records.

    Args:
        extractor: the extractor of both sets' features.
        real: features of real images.
        generated: features of samples.
        data: name of the data set.
        real_split: split of the real images.
        settings: settings to add to every record.
        seed: seed of the shuffles and subsets.
    Raises:
        UserError: a set is too small.
    """
    return [
        Record(
            name=f"{score.name}[{extractor.name}]",
            value=float(score.value),
            unit=score.unit,
            kind="score",
            data=data,
            measure=real.measure,
            split=real_split,
            examples=len(generated.features),
            settings={**settings, **extractor.facts, **score.settings},
        )
        for score in scores(real, generated, seed=seed)
    ]


def _spread(
    measured: kernel_distance.KernelDistance | inception_score.InceptionScore,
) -> dict[str, float]:
    """Returns the standard deviation as a setting, or nothing if there is none."""
    return {} if measured.standard_deviation is None else {"standard_deviation": measured.standard_deviation}
