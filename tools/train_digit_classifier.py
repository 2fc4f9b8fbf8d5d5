"""Trains the digit classifiers that compare samples and read pictures: the weights in gm_jax/evaluation/weights/.

    python -m tools.train_digit_classifier                                         # digits-cnn, half a minute
    python -m tools.train_digit_classifier --data.name mnist --train.steps 1500    # mnist-cnn
    python -m tools.train_digit_classifier --data.name captions                    # glyphs-cnn, needs prepared MNIST

Half of each batch is converted to black and white, so that the classifier also suits samples of binary models.
`glyphs-cnn` learns the glyphs that `evaluation.scene_reader` finds in the training pictures of captions and
captions:mnist, half of them blurred.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gm_jax import runner, signals
from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from gm_jax.data.array_cache import Splits
    from gm_jax.types import PyTree

_NAMES = {"digits": "digits-cnn", "mnist": "mnist-cnn", "captions": "glyphs-cnn"}
_PICTURES = 5_000  # of each set of captions and split, whose glyphs are learned


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains a digit classifier, and writes the weights of digits-cnn, mnist-cnn or glyphs-cnn."""

    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig(steps=2_000, batch_size=128, steps_per_call=1)
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=2e-3, schedule="cosine", warmup_steps=100, weight_decay=1e-2
    )
    output: Path | None = None
    """File to write; by default the file in the package."""


def train(config: Config) -> "tuple[PyTree, tuple[float, float]]":
    """Trains on the training split; returns the parameters and the test accuracies on grey and on binary images."""
    # Here, not above, so that --help need not import jax.
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from gm_jax.data import pipeline
    from gm_jax.networks.digit_classifier import DigitClassifier
    from gm_jax.recipes.optimizers import make_optimizer
    from gm_jax.training import parallel, state, step
    from gm_jax.types import Array, Batch, Key, Model, ModelState, Objective, Params

    splits, levels = examples(config)
    network = DigitClassifier()
    scale = lambda x: x.astype(jnp.float32) / (levels - 1)  # noqa: E731
    binary = lambda x: (x > 0.5).astype(jnp.float32)  # noqa: E731

    def init(key: Key, batch: Batch) -> tuple[Params, ModelState]:
        return {"classifier": network.init(key, scale(batch["x"]))["params"]}, {}

    def loss(params: Params, model_state: ModelState, key: Key, batch: Batch) -> tuple[Array, tuple[ModelState, dict]]:
        x = scale(batch["x"])
        grey = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
        _, logits = network.apply({"params": params["classifier"]}, jnp.where(grey, x, binary(x)))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])), (model_state, {})

    # Only what the train step needs of a family; a classifier draws no samples.
    model = Model(init, (Objective("classifier", loss),), sample=None)
    strategy = parallel.jit()
    optimizers = {"classifier": make_optimizer(config.optimizer, num_steps=config.train.steps)}
    update = strategy.compile(step.make_train_step(model, optimizers, seed=config.train.seed))
    size, count = config.train.batch_size, config.train.steps_per_call
    key = jax.random.key(config.train.seed)
    first = pipeline.train_batch(splits["train"], size, config.train.seed, 0)
    current = strategy.place(state.create(model, optimizers, key, first))
    for k in range(0, config.train.steps, count):
        signals.check()
        batches = pipeline.train_batches(splits["train"], size, config.train.seed, k, count)
        current, metrics = update(current, strategy.place_batches(batches))
    print(f"training loss {float(np.mean(metrics['loss'])):.4f}")

    params, test = jax.device_get(current.params["classifier"]), splits["test"]
    classify = jax.jit(lambda x: jnp.argmax(network.apply({"params": params}, x)[1], axis=1))
    x = scale(jnp.asarray(test["x"]))
    grey, black_and_white = (float(np.mean(classify(images) == test["label"])) for images in (x, binary(x)))
    return params, (grey, black_and_white)


def examples(config: Config) -> "tuple[Splits, int]":
    """Loads the images to classify, split -> {"x", "label"}, and their number of levels."""
    from gm_jax.data import sources

    spec, splits = sources.load(config.data.name, config.data.dir)
    if spec.tokens is not None:
        return glyphs(config), 256
    sources.check_labels(spec, splits)
    assert spec.levels is not None
    return splits, spec.levels


def glyphs(config: Config) -> "Splits":
    """Returns the glyphs of pictures as the reader crops them, split -> {"x": [N, 14, 14, 1] uint8, "label": [N]}."""
    import numpy as np

    from gm_jax.data import captions, scenes, sources
    from gm_jax.evaluation import scene_reader

    found: dict = {}
    for split in ("train", "test"):
        crops, labels = [], []
        for name in scenes.NAMES:
            arrays = sources.load(name, config.data.dir).splits[split]
            x, said = arrays["x"][:_PICTURES], captions.parse(arrays["tokens"][:_PICTURES])
            # The reader puts the left or the upper glyph first, the caption perhaps not.
            later = np.isin(said.arrangement, [captions.ARRANGEMENTS.index(name) for name in ("right of", "below")])
            digit = np.where(later[:, None], said.digit[:, ::-1], said.digit)
            for pictures in (x, _blurred(x)) if split == "train" else (x,):
                shown = scene_reader.find_glyphs(pictures)
                clear = (shown.scenes.digit >= 0) & (digit >= 0)
                crops.append(shown.crops[clear])
                labels.append(digit[clear])
        found[split] = {"x": np.concatenate(crops)[..., None], "label": np.concatenate(labels).astype(np.int32)}
    return found


def _blurred(x: "np.ndarray") -> "np.ndarray":
    """Smooths pictures [N, H, W, C] uint8 by (1, 2, 1) / 4 along rows and columns."""
    import numpy as np

    smooth = np.pad(x.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
    smooth = (smooth[:, :, :-2] + 2 * smooth[:, :, 1:-1] + smooth[:, :, 2:]) / 4
    return np.rint(smooth).astype(np.uint8)


def make(config: Config) -> str:
    """Trains the classifier, writes its weights and returns a summary.

    Raises:
        UserError: the package has no classifier of these data, and no output file is given.
    """
    from gm_jax.evaluation import features

    name = _NAMES.get(config.data.name)
    if name is None and config.output is None:
        raise UserError(f"the package has no classifier of {config.data.name}: name a file with --output.")
    params, (grey, binary) = train(config)
    path = config.output or features.WEIGHTS / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"command": " ".join(["python -m tools.train_digit_classifier", *sys.argv[1:]])}
    metadata |= {"test_accuracy": f"{grey:.4f}", "test_accuracy_binary": f"{binary:.4f}"}
    features.write_weights(path, features.flatten(params), metadata)
    return f"test accuracy {grey:.4f}, on binary images {binary:.4f}: {path}, {path.stat().st_size:,} bytes"


if __name__ == "__main__":
    runner.program(Config, make)
