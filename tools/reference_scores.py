"""What real data score against real data: one half of a training split against the other, the floor of every distance.

    python -m tools.reference_scores                                                # digits by digits-cnn
    python -m tools.reference_scores --data.name mnist --data.dir ../shared/tfds --features mnist-cnn
    python -m tools.reference_scores --data.name cifar10 --features inception --weights inception.safetensors

A Frechet distance is of its number of samples: --num takes fewer of each half. The last rows are what GANs' estimates
by kernels are to be held against: the test split's NLL as a density in [0, 1]^D by kernels on training images.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from gm_jax import runner

CENTRES = (1_000, 10_000)  # of this project's tables, and of the literature's


@dataclasses.dataclass(frozen=True)
class Config:
    """Which data, by which features."""

    data: runner.DataConfig = runner.DataConfig()
    features: Literal["digits-cnn", "mnist-cnn", "inception"] = "digits-cnn"
    """The extractor."""
    weights: Path | None = None
    """Its weights, for inception: the file that tools/convert_inception.py makes."""
    num: runner.Count | None = None
    """Images of each half; by default all."""


def measure(config: Config) -> str:
    """The table of distances and scores."""
    from gm_jax.data import sources
    from gm_jax.evaluation import features, results, sample_metrics

    extractor = features.load(config.features, config.weights)
    spec, splits = sources.load(config.data.name, config.data.dir)
    halves = [splits["train"]["x"][start::2][: config.num] for start in (0, 1)]
    gathered = [
        sample_metrics.gather(extractor, features.as_images(half, extractor, levels=spec.levels or 0))
        for half in halves
    ]
    records = sample_metrics.measure(
        extractor,
        *gathered,
        data=spec.name,
        measure=spec.measure,
        real_split="train",
        settings={"generated": "the other half"},
    )
    return results.table(records + by_kernels(spec, splits))


def by_kernels(spec, splits) -> list:
    """Records of the test split's NLL by kernels on so many training images as CENTRES has, where there are so many."""
    import jax.numpy as jnp

    from gm_jax.evaluation import kde
    from gm_jax.evaluation.results import Record

    def unit(split: str, num: int | None):
        x = splits[split]["x"][:num]
        return jnp.asarray(x.reshape(len(x), -1), jnp.float32) / (spec.levels - 1)

    def record(num: int) -> Record:
        centres, points = unit("train", num), unit("test", None)
        bandwidth = kde.choose_bandwidth(unit("validation", 1_000), centres, jnp.geomspace(0.01, 10.0, 60)).bandwidth
        value = -float(jnp.mean(kde.log_density(points, centres, bandwidth)))
        settings = {"centres": num, "bandwidth": f"{float(bandwidth):.2g}", "centres_from": "train"}
        return Record("nll", value, "nats", "estimate", spec.name, "continuous", "test", len(points), settings)

    return [record(num) for num in CENTRES if num <= len(splits["train"]["x"])]


if __name__ == "__main__":
    runner.program(Config, measure)
