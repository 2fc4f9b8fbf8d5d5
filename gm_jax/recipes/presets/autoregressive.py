"""Presets of autoregressive models."""

import dataclasses

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.autoregressive import (
    MADEConfig,
    PixelCNNConfig,
    PixelCNNPlusPlusConfig,
    PixelRNNConfig,
)
from gm_jax.recipes.presets.preset import Preset

_STATIC = DataConfig(name="binarized_mnist")

_MADE = MADEConfig(
    preset="made/mnist",
    data=_STATIC,
    # One validation an epoch, and a look-ahead of 30 epochs.
    train=TrainConfig(steps=250_000, batch_size=100, checkpoint_every=500, patience=30),
    optimizer=OptimizerConfig(algorithm="adagrad", learning_rate=0.01, eps=1e-6),
    hidden=(8_000, 8_000),
    order="random",
    orderings=32,
    direct=True,
)

_RMSPROP = OptimizerConfig(algorithm="rmsprop", learning_rate=1e-3, b2=0.99)

_PIXELRNN = PixelRNNConfig(
    preset="pixelrnn/mnist",
    data=_STATIC,
    train=TrainConfig(steps=300_000, batch_size=16, checkpoint_every=2_500, log_every=500),
    optimizer=_RMSPROP,
    lstm="diagonal",
    hidden=16,
    layers=7,
)

_PIXELCNN_MNIST = PixelCNNConfig(
    preset="pixelcnn/mnist",
    data=_STATIC,
    train=_PIXELRNN.train,
    optimizer=_RMSPROP,
    gated=False,
    features=32,
    layers=7,
)

_GATED_CIFAR10 = dataclasses.replace(
    _PIXELCNN_MNIST,
    preset="pixelcnn/cifar10",
    data=DataConfig(name="cifar10"),
    train=TrainConfig(steps=200_000, batch_size=128, checkpoint_every=2_500, log_every=500),
    output="categorical",
    gated=True,
    features=384,
    layers=14,  # after the first
)

_PIXELCNN_PP = PixelCNNPlusPlusConfig(
    preset="pixelcnn_pp/cifar10",
    data=DataConfig(name="cifar10"),
    train=TrainConfig(
        steps=2_600_000,  # 5,000 epochs, which the source's code stops at
        batch_size=96,
        checkpoint_every=2_600,
        log_every=520,
        ema_decay=0.9995,
        ema_warmup="none",
    ),
    optimizer=OptimizerConfig(
        learning_rate=1e-3, b1=0.95, b2=0.9995, schedule="exponential", decay_rate=0.999995, warmup_steps=0
    ),
    features=160,
    blocks=5,
    scales=3,
    components=10,
    dropout=0.5,
)

_RATE = "The learning rate and the number of steps are ours: the paper gives none."

PRESETS = (
    Preset(
        config=_MADE,
        shape=(28, 28, 1),
        title="MADE with 32 masks on static binarized MNIST",
        source="Germain, Gregor, Murray & Larochelle, ICML 2015, arXiv:1502.03509, section 6.3; code mgermain/MADE",
        published="86.64 nats",
        parameters=77_175_440,
        count="The paper gives no number.",
        not_as_published=(
            "Kernels start normal with a variance of 1 / inputs; in the source orthogonal.",
            "The likelihood is of the mixture of the 32 orderings; a validation of the source draws 300 masks.",
            "A largest number of steps, 500 epochs; the source only stops early.",
        ),
    ),
    Preset(
        config=_PIXELRNN,
        shape=(28, 28, 1),
        title="PixelRNN (Diagonal BiLSTM) on static binarized MNIST",
        source="van den Oord, Kalchbrenner & Kavukcuoglu, ICML 2016, arXiv:1601.06759, sections 3 and 5",
        published="79.20 nats",
        parameters=64_417,
        count="The paper gives no number.",
        not_as_published=(
            _RATE,
            "The mirrored direction reads the image too, which closes a blind spot, see `networks/pixelrnn.py`.",
        ),
    ),
    Preset(
        config=_PIXELCNN_MNIST,
        shape=(28, 28, 1),
        title="PixelCNN on static binarized MNIST",
        source="van den Oord, Kalchbrenner & Kavukcuoglu, ICML 2016, arXiv:1601.06759, sections 3 and 5",
        published="81.30 nats",
        parameters=18_497,
        count="The paper gives no number.",
        not_as_published=(
            _RATE,
            "The paper does not give the layers and the width of this model: those of its BiLSTM, 7 and 2 x 16.",
        ),
    ),
    Preset(
        config=_GATED_CIFAR10,
        shape=(32, 32, 3),
        title="Gated PixelCNN on CIFAR-10",
        source="van den Oord et al., NeurIPS 2016, arXiv:1606.05328, table 1",
        published="3.03 bits/dim",
        parameters=44_635_392,
        count="The paper gives no number.",
        not_as_published=(
            _RATE,
            "The paper does not give the layers of this model: 15 layers of 128 features for each colour are those of "
            "the PixelCNN of van den Oord et al. (ICML 2016).",
            "Kernels after the first are 3 x 3.",
        ),
    ),
    Preset(
        config=_PIXELCNN_PP,
        shape=(32, 32, 3),
        title="PixelCNN++ on CIFAR-10",
        source="Salimans, Karpathy, Chen & Kingma, ICLR 2017, arXiv:1701.05517, section 3.1; code openai/pixel-cnn",
        published="2.92 bits/dim",
        parameters=53_659_080,
        count="The paper gives no number. The layers of its code have as many.",
        not_as_published=(
            "One batch of 96; in the source 12 on each of 8 GPUs.",
            "Log-scales have a smooth bound at -7; in the source a cut.",
            "Adam adds 1e-8 to the root of the second moment; in the source within the root.",
            "The first 96 images set the lengths of the kernels, without dropout; in the source 100, with it.",
        ),
    ),
)
