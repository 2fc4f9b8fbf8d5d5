import dataclasses
from types import SimpleNamespace
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import runner
from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.runner import speed
from gm_jax.training.state import TrainState
from gm_jax.types import Model

SPEC = Spec("digits", (4,), None, None, "")


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: int = 3
    sampling_steps: Annotated[int, runner.Sampling] = 10


def model(turns, calls=None):
    """Whose sample takes so many turns of a loop; every drawing is written to `calls`."""

    def sample(params, model_state, key, n, *, label=None):
        if calls is not None:
            jax.debug.callback(lambda w: calls.append(float(w)), params["w"])
        x = jnp.full((n, 200), params["w"])
        return jax.lax.fori_loop(0, turns, lambda i, x: jnp.sin(x), x)

    return Model(lambda key, batch: ({"w": jnp.ones(())}, {}), (), sample)


def run(rivals, config=None):
    config = config or Config()
    own = []
    experiment = SimpleNamespace(model=model(10, own), rivals=rivals)
    state = TrainState(jnp.int32(3), {"w": jnp.full((), 2.0)}, {"w": jnp.full((), 5.0)}, {}, {})
    return SimpleNamespace(experiment=experiment, spec=SPEC, config=config), state, own


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


def test_a_rival_that_does_not_take_the_data_is_passed_over():
    def refuse(key, batch):
        raise UserError("images only")

    opened, state, _ = run({"choosy": model(1)._replace(init=refuse)})
    assert [record.name for record in speed.records(opened, state)] == ["time per sample"]


def test_a_choice_of_how_to_sample_that_is_not_the_usual_one_is_said():
    for config, said in ((Config(hidden=4), {}), (Config(sampling_steps=5), {"sampling_steps": 5})):
        opened, state, _ = run({"other": model(1)}, config)
        for record in speed.records(opened, state):
            assert {name: value for name, value in record.settings.items() if name == "sampling_steps"} == said
