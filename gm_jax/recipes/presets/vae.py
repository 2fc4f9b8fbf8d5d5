"""Presets of variational autoencoders."""

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.vae import IWAEConfig
from gm_jax.recipes.presets.preset import Preset

_EPOCH = 2_500  # updates: 50,000 images in batches of 20

_IWAE = IWAEConfig(
    preset="iwae/mnist",
    data=DataConfig(name="mnist"),
    train=TrainConfig(
        steps=3_280 * _EPOCH, batch_size=20, steps_per_call=50, checkpoint_every=10 * _EPOCH, log_every=_EPOCH
    ),
    # 3^(i-1) epochs at 1e-4 round(10^(1 - (i-1)/7), 1), for i = 1 ... 8.
    optimizer=OptimizerConfig(
        learning_rate=1e-3,
        schedule="steps",
        boundaries=tuple(_EPOCH * epochs for epochs in (1, 4, 13, 40, 121, 364, 1_093)),
        factors=(0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.1),
        eps=1e-4,
    ),
    hidden=(200, 200),
    activation="tanh",
    latent_dim=50,
    decoder="bernoulli",
    binarization="dynamic",
    num_samples=50,
    importance_samples=5_000,
)

PRESETS = (
    Preset(
        config=_IWAE,
        shape=(28, 28, 1),
        title="IWAE with 50 samples and one layer on MNIST",
        source="Burda, Grosse & Salakhutdinov, ICLR 2016, arXiv:1509.00519, table 1; code yburda/iwae, experiments.py",
        published="84.78 nats (bound of 5,000 samples, dynamic binarisation)",
        parameters=425_284,
        count="The paper gives no number.",
        not_as_published=(
            "50,000 images to train on; the source has 59,600 and holds out 400.",
            "Adam's betas as in the paper, 0.9 and 0.999; the code has 0.99, and second moments that start at 1.",
            "The bias of the decoder starts at 0; in the source at the log-odds of the mean image.",
        ),
    ),
)
