"""Reference scores: the distances and scores between the two halves of a training split, which models can hardly beat.

    python -m tools.reference_scores                                                # digits with digits-cnn
    python -m tools.reference_scores --data.name mnist --features mnist-cnn
    python -m tools.reference_scores --data.name cifar10 --features inception --weights inception.safetensors

Distances depend on the number of samples: use --num to compare with results from fewer samples. The last rows are the
reference for kernel estimates of GANs: the NLL of the test split as a density in [0, 1]^D, from kernels on training
images.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gm_jax import runner, signals
from gm_jax.config import Count, DataConfig
from gm_jax.data import sources
from gm_jax.data.array_cache import Splits

if TYPE_CHECKING:
    from gm_jax.evaluation.results import Record

CENTRES = (1_000, 10_000)  # as in this project's tables, and as in the literature


@dataclasses.dataclass(frozen=True)
class Config:
    """Computes the distances and scores between the two halves of a training split."""

    data: DataConfig = DataConfig()
    features: Literal["digits-cnn", "mnist-cnn", "inception"] = "digits-cnn"
    """Extractor of features."""
    weights: Path | None = None
    """Weights of inception: the file that tools.convert_inception writes."""
    num: Count | None = None
    """Number of images in each half; by default all."""


def measure(config: Config) -> str:
    """Returns the table of distances and scores.

    Raises:
        UserError: the weights are missing, or the data are not images for this extractor.
    """
    # Here, not above, so that --help need not import jax.
    from gm_jax.evaluation import features, results, sample_metrics

    extractor = features.load(config.features, config.weights)
    spec, splits = sources.load(config.data.name, config.data.dir)
    halves = [splits["train"]["x"][start::2][: config.num] for start in (0, 1)]
    gathered = [
        sample_metrics.gather(
            extractor, features.as_images(half, extractor, levels=spec.levels or 0), measure=spec.measure
        )
        for half in halves
    ]
    records = sample_metrics.measure(
        extractor,
        *gathered,
        data=spec.name,
        real_split="train",
        settings={"generated": "the other half"},
    )
    return results.table(records + kernel_records(spec, splits))


def kernel_records(spec: sources.Spec, splits: Splits) -> "list[Record]":
    """Measures the NLL of the test split from kernels on training images, for each number of centres in CENTRES."""
    import jax.numpy as jnp

    from gm_jax.evaluation import kde
    from gm_jax.evaluation.results import Record

    def unit(split: str, num: int | None) -> jnp.ndarray:
        x = splits[split]["x"][:num]
        return jnp.asarray(x.reshape(len(x), -1), jnp.float32) / (spec.levels - 1)

    def record(num: int) -> Record:
        signals.check()
        centres, points = unit("train", num), unit("test", None)
        bandwidth = kde.choose_bandwidth(unit("validation", 1_000), centres, jnp.geomspace(0.01, 10.0, 60)).bandwidth
        value = -float(jnp.mean(kde.log_density(points, centres, bandwidth)))
        facts = {"centres": num, "bandwidth": f"{float(bandwidth):.2g}", "centres_from": "train"}
        settings = {"space": f"[0,1]^{points.shape[1]}", **facts}
        return Record("nll", value, "nats", "estimate", spec.name, "continuous", "test", len(points), settings)

    return [record(num) for num in CENTRES if num <= len(splits["train"]["x"])]


if __name__ == "__main__":
    runner.program(Config, measure)
