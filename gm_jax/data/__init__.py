"""Data: named sources of numpy arrays, and batches that are pure functions of (seed, step).

* `sources.load(name, data_dir)` gives a `Source`: its `Spec` and its splits, whole in memory.
* `pipeline` cuts splits into batches: `train_batch`, `train_batches`, `eval_batches`.
* `toy.toy_log_density(name)` is the exact density of a `toy:*` source, `waveform.waveform_log_prob` of a `wave:*` one,
  and `binary_digits.small_world_probabilities()` the distribution of `digits4x4`.

This room knows neither JAX nor any model: arrays are numpy, images stay uint8 until the model's own transform.
"""

from gm_jax.data import binary_digits, pipeline, sources, toy, waveform

__all__ = ["binary_digits", "pipeline", "sources", "toy", "waveform"]
