from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.data.sources import Spec
from gm_jax.runner import speed
from gm_jax.training.state import TrainState
from gm_jax.types import Model

SPEC = Spec("digits", (4,), None, None, "")


def model(turns, calls=None):
    """Whose sample takes so many turns of a loop; every drawing is written to `calls`."""

    def sample(params, model_state, key, n, *, label=None):
        if calls is not None:
            jax.debug.callback(lambda w: calls.append(float(w)), params["w"])
        x = jnp.full((n, 200), params["w"])
        return jax.lax.fori_loop(0, turns, lambda i, x: jnp.sin(x), x)

    return Model(lambda key, batch: ({"w": jnp.ones(())}, {}), (), sample)


def run(rivals):
    own = []
    experiment = SimpleNamespace(model=model(10, own), rivals=rivals)
    state = TrainState(jnp.int32(3), {"w": jnp.full((), 2.0)}, {"w": jnp.full((), 5.0)}, {}, {})
    return SimpleNamespace(experiment=experiment, spec=SPEC), state, own


def test_a_rival_of_more_work_takes_more_time():
    opened, state, own = run({"slow": model(2_000)})
    records = {record.name: record for record in speed.records(opened, state)}
    assert list(records) == ["time per sample", "time per sample, slow", "time per sample, slow / this"]
    times = [record.value for record in records.values()]
    np.testing.assert_allclose(times[2], times[1] / times[0], rtol=1e-6)
    assert times[2] > 5.0
    assert [record.unit for record in records.values()] == ["ms", "ms", "times"]
    jax.effects_barrier()
    assert set(own) == {5.0}  # the average of the parameters draws


def test_without_rivals_nothing_is_timed():
    opened, state, own = run({})
    assert speed.records(opened, state) == []
    assert own == []
