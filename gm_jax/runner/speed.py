"""How long a sample takes, beside a sample of other models: measured where the run is, for its table and its file."""

import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.evaluation.results import Record
from gm_jax.runner import config as config_lib
from gm_jax.runner.run import Run, abstract_batch
from gm_jax.training import parallel
from gm_jax.training.state import TrainState
from gm_jax.types import Model, ModelState, Params

NUM_SAMPLES = 64
_REPEATS = 5


def records(run: Run, state: TrainState) -> list[Record]:
    """The time per sample of the run's model and of its rivals, and how many times as long theirs is.

    None where the experiment has no rivals; one that does not take the data is passed over. They have parameters of
    zero: a sampler takes the same time with any.
    """
    if not run.experiment.rivals:
        return []
    state = parallel.local(state)
    own = seconds_per_sample(run.experiment.model, state.eval_params, state.model_state)
    found = [_record(run, "time per sample", 1e3 * own, "ms")]
    for name, rival in run.experiment.rivals.items():
        batch = abstract_batch(run.spec, 1)
        try:
            shapes = jax.eval_shape(rival.init, _key(), batch)
        except UserError:  # not for data of this shape: no reason to lose what else has been measured
            continue
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        theirs = seconds_per_sample(rival, *zeros)
        found += [
            _record(run, f"time per sample, {name}", 1e3 * theirs, "ms"),
            _record(run, f"time per sample, {name} / this", theirs / own, "times"),
        ]
    return found


def seconds_per_sample(model: Model, params: Params, model_state: ModelState, *, num: int = NUM_SAMPLES) -> float:
    """The median time of drawing `num` samples at once, compiled before, divided by `num`."""
    sample = jax.jit(model.sample, static_argnums=3)
    jax.block_until_ready(sample(params, model_state, _key(), num))
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(sample(params, model_state, _key(), num))
        times.append(time.perf_counter() - start)
    return statistics.median(times) / num


def _key() -> jax.Array:
    return jax.random.key(0)


def _record(run: Run, name: str, value: float, unit: str) -> Record:
    usual = {field.name: field.default for field in dataclasses.fields(run.config)}
    chosen = {name: getattr(run.config, name) for name in config_lib.sampling_fields(type(run.config))}
    settings = {
        "device": jax.local_devices()[0].device_kind,
        "samples_at_once": NUM_SAMPLES,
        **{name: value for name, value in chosen.items() if value != usual[name]},
    }
    spec = run.spec
    return Record(name, value, unit, "measured", spec.name, spec.measure, "none", NUM_SAMPLES * _REPEATS, settings)
