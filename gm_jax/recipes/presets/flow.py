"""Presets of normalising flows."""

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.flow import GlowConfig, NICEConfig, RealNVPConfig
from gm_jax.recipes.presets.preset import Preset

_NICE = NICEConfig(
    preset="nice/mnist",
    data=DataConfig(name="mnist"),
    train=TrainConfig(steps=375_000, batch_size=200, checkpoint_every=2_500, log_every=500),
    optimizer=OptimizerConfig(learning_rate=1e-3, b2=0.99, eps=1e-4),
    hidden=(1_000, 1_000, 1_000, 1_000, 1_000),
    couplings=4,
    prior="logistic",
)

_REALNVP = RealNVPConfig(
    preset="realnvp/cifar10",
    data=DataConfig(name="cifar10", flip=True),
    train=TrainConfig(steps=500_000, batch_size=64, checkpoint_every=10_000, log_every=500),
    optimizer=OptimizerConfig(learning_rate=1e-3, l2=5e-5),
    network="conv",
    features=64,
    blocks=8,
    weight_norm=True,
    scales=2,
)

_GLOW = GlowConfig(
    preset="glow/cifar10",
    data=DataConfig(name="cifar10"),
    train=TrainConfig(steps=200_000, batch_size=512, checkpoint_every=2_500, log_every=500),
    # b2 = 1 - 1 / (updates of an epoch), and a warm-up of ten epochs, of 50,000 images.
    optimizer=OptimizerConfig(algorithm="adamax", learning_rate=1e-3, b2=0.9898, warmup_steps=977),
    alpha=0.0,
    steps=32,
    scales=3,
    features=512,
)

PRESETS = (
    Preset(
        config=_NICE,
        shape=(28, 28, 1),
        title="NICE on MNIST",
        source="Dinh, Krueger & Bengio, ICLR 2015 workshop, arXiv:1410.8516, section 5.1",
        published="1980.50 nats (log density on [0, 1]^784; 4.36 bits/dim)",
        parameters=19_158_352,
        count="The paper gives no number.",
        not_as_published=(
            "The paper's beta_2 = 0.01 is 1 - b2, in the notation of the first version of Adam's paper.",
            "The batch size is ours: the paper gives none.",
            "The scaling starts from the first batch, see `networks/nice.py`.",
        ),
    ),
    Preset(
        config=_REALNVP,
        shape=(32, 32, 3),
        title="RealNVP on CIFAR-10",
        source="Dinh, Sohl-Dickstein & Bengio, ICLR 2017, arXiv:1605.08803, section 4.1",
        published="3.49 bits/dim",
        parameters=6_039_646,
        count="The paper gives no number. Its code doubles the features at the second scale; here all scales have 64.",
        not_as_published=(
            "Actnorm in place of batch normalisation, see `networks/realnvp.py`.",
            "The coupled L2 of 5e-5 is on all parameters; in the source on the lengths of the weight normalisation.",
            "The number of steps is ours: the paper gives none.",
        ),
    ),
    Preset(
        config=_GLOW,
        shape=(32, 32, 3),
        title="Glow on CIFAR-10",
        source="Kingma & Dhariwal, NeurIPS 2018, arXiv:1807.03039, table 2; code openai/glow: mpiexec -n 8 "
        "python train.py --problem cifar10 --n_level 3 --depth 32 --flow_permutation 2 --flow_coupling 1 --learntop "
        "--lr 0.001",
        published="3.35 bits/dim",
        parameters=44_051_244,
        count="About 44.0 million in the source.",
        not_as_published=(
            "Log-scales are bounded by 2 tanh(r / 2); the source's couplings have a sigmoid, see `networks/glow.py`.",
            "No random shifts of the training images by up to a tenth of their sides, which the source has.",
            "Eight devices at 64 images each are one batch of 512; the source divides a batch by its processes too.",
            "The number of steps is ours: the paper gives none.",
        ),
    ),
)
