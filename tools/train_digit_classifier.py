"""The classifiers of digits that samples are measured by: makes the weights in gm_jax/evaluation/weights/.

    python -m tools.train_digit_classifier                                         # digits-cnn, half a minute
    python -m tools.train_digit_classifier --data.name mnist --data.dir ../shared/tfds --train.steps 1500    # mnist-cnn

It is no generative model. Half of each batch is made black and white, so that samples of binary models are nothing
strange to it.
"""

import dataclasses
import sys
from pathlib import Path

from gm_jax import runner
from gm_jax.errors import UserError

_NAMES = {"digits": "digits-cnn", "mnist": "mnist-cnn"}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train on, and how long."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(steps=2_000, batch_size=128, steps_per_call=1)
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(
        learning_rate=2e-3, schedule="cosine", warmup_steps=100, weight_decay=1e-2
    )
    output: Path | None = None
    """The file to write; by default that of the package."""


def train(config: Config):
    """Trains on the training split; returns the parameters and the accuracy on the test split, grey and binary."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from gm_jax.data import pipeline, sources
    from gm_jax.networks.digit_classifier import DigitClassifier
    from gm_jax.training import parallel, state, step
    from gm_jax.types import Model, Objective

    spec, splits = sources.load(config.data.name, config.data.dir)
    network = DigitClassifier()
    scale = lambda x: x.astype(jnp.float32) / (spec.levels - 1)  # noqa: E731
    binary = lambda x: (x > 0.5).astype(jnp.float32)  # noqa: E731

    def init(key, batch):
        return {"classifier": network.init(key, scale(batch["x"]))["params"]}, {}

    def loss(params, model_state, key, batch):
        x = scale(batch["x"])
        grey = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
        _, logits = network.apply({"params": params["classifier"]}, jnp.where(grey, x, binary(x)))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])), (model_state, {})

    # Of a family's record, what a step needs: this one has no samples.
    model = Model(init, (Objective("classifier", loss),), sample=None)
    strategy, optimizers = parallel.jit(), {"classifier": runner.make_optimizer(config.optimizer, config.train)}
    update = strategy.compile(step.make_train_step(model, optimizers, seed=config.train.seed))
    size, count = config.train.batch_size, config.train.steps_per_call
    key = jax.random.key(config.train.seed)
    first = pipeline.train_batch(splits["train"], size, config.train.seed, 0)
    current = strategy.place(state.create(model, optimizers, key, first))
    for k in range(0, config.train.steps, count):
        batches = pipeline.train_batches(splits["train"], size, config.train.seed, k, count)
        current, metrics = update(current, strategy.place_batches(batches))
    print(f"training loss {float(np.mean(metrics['loss'])):.4f}")

    params, test = jax.device_get(current.params["classifier"]), splits["test"]
    classify = jax.jit(lambda x: jnp.argmax(network.apply({"params": params}, x)[1], axis=1))
    x = scale(jnp.asarray(test["x"]))
    return params, [float(np.mean(classify(form) == test["label"])) for form in (x, binary(x))]


def make(config: Config) -> str:
    """Train, measure and write."""
    from gm_jax.evaluation import features

    name = _NAMES.get(config.data.name)
    if name is None and config.output is None:
        raise UserError(f"{config.data.name} has no classifier in the package: name a file, --output.")
    params, (grey, binary) = train(config)
    path = config.output or features.WEIGHTS / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"command": " ".join(["python -m tools.train_digit_classifier", *sys.argv[1:]])}
    said |= {"test_accuracy": f"{grey:.4f}", "test_accuracy_binary": f"{binary:.4f}"}
    features.write_weights(path, features.flatten(params), said)
    return f"test accuracy {grey:.4f}, of binary images {binary:.4f}: {path}, {path.stat().st_size:,} bytes"


if __name__ == "__main__":
    runner.program(Config, make)
