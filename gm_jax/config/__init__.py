"""The parts of a configuration: data only, no jax, so that `--help` answers at once.

fields.py    types of fields with their ranges (Count, Rate, ...) and marks (Neutral, Measuring, Sampling, Added)
sections.py  the sections that experiments share: data, training, optimisers
saved.py     checks, config.json, comparison with a saved configuration

A configuration is a frozen dataclass of numbers, strings, tuples and other such dataclasses. The text under a field is
its help on the command line.
"""

from gm_jax.config.fields import (
    Added,
    Binarization,
    Count,
    CountFromTwo,
    CountOrZero,
    Decay,
    Factor,
    Guidance,
    Measuring,
    Neutral,
    Precision,
    Rate,
    RateOrZero,
    Sampling,
    Seed,
    Share,
    Temperature,
    Widths,
)
from gm_jax.config.sections import AdamConfig, DataConfig, ExperimentConfig, OptimizerConfig, SGDConfig, TrainConfig

__all__ = [
    "AdamConfig",
    "Added",
    "Binarization",
    "Count",
    "CountFromTwo",
    "CountOrZero",
    "DataConfig",
    "Decay",
    "ExperimentConfig",
    "Factor",
    "Guidance",
    "Measuring",
    "Neutral",
    "OptimizerConfig",
    "Precision",
    "Rate",
    "RateOrZero",
    "SGDConfig",
    "Sampling",
    "Seed",
    "Share",
    "Temperature",
    "TrainConfig",
    "Widths",
]
