"""Toy waveforms with a known probability: quantised noisy tones of random pitch and phase.

"wave:tones": x [T] integer levels 0 ... L - 1, T = 256, L = 64. A tone of pitch k (the label) and phase j has the mean
m_t at time t, on the scale where the levels span [-1, 1]; x_t is the level nearest to a logistic draw around it:

    m_t(k, j) = 3/5 sin a + 1/5 sin 2a,   a = 2 pi (f_k t + j / J),   f_k = 2^(k/4) / 64,  k = 0 ... 7, J = 32   (1)
    p(x)      = 1/(K J) sum_k sum_j prod_t P(x_t | m_t(k, j), s),   s = 1/20                              (2)

with P the mass of the level's bin; the first and the last bin are open. The sum (2) has 256 terms and is evaluated
exactly, so a model's likelihood can be compared with the truth: over the test split -log p averages 634.7 nats, 3.58
bits per dimension.
"""

import functools

import numpy as np

from gm_jax.data.names import unknown_name

PREFIX = "wave:"
NAMES = ("tones",)
LEVELS, LENGTH = 64, 256
NUM_PITCHES, NUM_PHASES = 8, 32
NUM_EXAMPLES = {"train": 10_000, "validation": 1_000, "test": 1_000}

_SCALE = 1 / 20
_SEED = 64


def waveform_splits(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Draws the splits of a waveform source, always the same arrays.

    Args:
        name: "wave:tones".
    Returns:
        {"train" (10,000), "validation" (1,000), "test" (1,000)} -> {"x": [N, 256] uint8, "label": [N] int32}.
    Raises:
        UserError: there is no such source.
    """
    _check_name(name)
    means, splits = _means(), {}
    for index, (split, num_examples) in enumerate(NUM_EXAMPLES.items()):
        rng = np.random.default_rng([_SEED, index])
        pitch, phase = rng.integers(NUM_PITCHES, size=num_examples), rng.integers(NUM_PHASES, size=num_examples)
        x = means[pitch, phase] + _SCALE * rng.logistic(size=(num_examples, LENGTH))
        levels = np.clip(np.rint((x + 1) / 2 * (LEVELS - 1)), 0, LEVELS - 1)
        splits[split] = {"x": levels.astype(np.uint8), "label": pitch.astype(np.int32)}
    return splits


def waveform_log_prob(name: str, x: np.ndarray) -> np.ndarray:
    """Computes the exact log-probability (2) of waveforms.

    Args:
        name: "wave:tones".
        x: [N, 256] integer levels.
    Returns:
        [N] nats, float64.
    Raises:
        UserError: there is no such source.
    """
    _check_name(name)
    log_mass = _log_mass().reshape(-1, LENGTH, LEVELS)
    time = np.arange(LENGTH)
    each = np.stack([log_mass[:, time, wave].sum(axis=-1) for wave in np.asarray(x)])  # [N, K J]
    largest = each.max(axis=-1)
    return largest + np.log(np.exp(each - largest[:, None]).mean(axis=-1))


def _check_name(name: str) -> None:
    if name.removeprefix(PREFIX) not in NAMES:
        raise unknown_name("waveform source", name, [PREFIX + known for known in NAMES])


def _means() -> np.ndarray:
    """Equation (1), [K, J, T]."""
    frequency = 2.0 ** (np.arange(NUM_PITCHES) / 4) / 64
    phase = np.arange(NUM_PHASES) / NUM_PHASES
    angle = 2 * np.pi * (frequency[:, None, None] * np.arange(LENGTH) + phase[:, None])
    return 0.6 * np.sin(angle) + 0.2 * np.sin(2 * angle)


@functools.cache
def _log_mass() -> np.ndarray:
    """Log P(level | m_t(k, j), s), [K, J, T, L]."""
    edges = (2.0 * np.arange(1, LEVELS) - 1) / (LEVELS - 1) - 1
    below = 1 / (1 + np.exp(-(edges - _means()[..., None]) / _SCALE))
    ends = np.zeros_like(below[..., :1])
    return np.log(np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1))
