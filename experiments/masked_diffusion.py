r"""Masked (absorbing) diffusion (Shi et al., NeurIPS 2024, arXiv:2406.04329; Hoogeboom et al., arXiv:2110.02037).

    python -m experiments.masked_diffusion                                # digits in black and white, about six minutes
    python -m experiments.masked_diffusion --output categorical           # the levels themselves
    python -m experiments.masked_diffusion sample --sampling-steps 8      # several pixels at each step
    python -m experiments.masked_diffusion --data.name binarized_mnist --train.steps 6000 \
        --train.checkpoint-every 1000 --bound-terms 100

Results: the bound, exact likelihoods in four orders, and a bound of the mixture of all orders.
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import MaskedDiffusionConfig

CONFIG = MaskedDiffusionConfig(
    train=TrainConfig(steps=2_000, batch_size=50, steps_per_call=10, checkpoint_every=200, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
    dropout=0.1,
)

if __name__ == "__main__":
    runner.main(CONFIG)
