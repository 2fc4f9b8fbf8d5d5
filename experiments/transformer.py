r"""A causal transformer of pixels (Image GPT, Chen et al., ICML 2020; Sparse Transformers, Child et al. 2019).

    python -m experiments.transformer                                        # digits
    python -m experiments.transformer --data.name binarized_mnist --train.steps 1800 --train.checkpoint-every 300 \
        --train.batch-size 32
    python -m experiments.transformer --output categorical --conditional     # the levels themselves, given the label
"""

from gm_jax import runner
from gm_jax.config import OptimizerConfig, TrainConfig
from gm_jax.recipes.configs import TransformerConfig

CONFIG = TransformerConfig(
    train=TrainConfig(steps=1_500, batch_size=50, steps_per_call=10, checkpoint_every=150, ema_decay=0.995, patience=4),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=None),
    dropout=0.1,
)

if __name__ == "__main__":
    runner.main(CONFIG)
