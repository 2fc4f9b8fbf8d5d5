"""A small model with Markov chains, and a program that trains it as one of several processes.

python _chains.py ADDRESS PROCESSES PROCESS
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.training import parallel, state, step
from gm_jax.types import Mean, Model, Objective, Rows

BATCH, NUM_ROWS, CALLS, STEPS_PER_CALL = 4, 12, 4, 2
OPTIMIZERS = {"energy": optax.sgd(0.1)}


def refresh(rows, key):
    """Moves each chain halfway to 0 and adds noise; halving is exact, so no fusion changes the bits."""
    return {"x": 0.5 * rows["x"] + jax.random.normal(key, rows["x"].shape), "visits": rows["visits"] + 1}


def model(num_rows=NUM_ROWS, per_step=None, turns=None):
    """A Gaussian energy |x - m|^2 / 2, trained on the difference between data and chains."""

    def init(key, batch):
        dims = batch["x"].shape[1]
        rows = {"x": jax.random.normal(key, (num_rows, dims)), "visits": jnp.zeros((num_rows,), jnp.int32)}
        chains = {"rows": rows, "count": jnp.zeros((), jnp.int32)}
        return {"energy": jnp.zeros((dims,))}, {"chains": chains, "seen": jnp.zeros((dims,))}

    def loss(params, model_state, key, batch):
        chains = model_state["chains"]
        rows = refresh(chains["rows"], key)

        def energy(x):
            return 0.5 * jnp.mean(jnp.sum((x - params["energy"][None]) ** 2, axis=1))

        new_state = {"chains": {"rows": rows, "count": chains["count"] + 1}, "seen": jnp.mean(batch["x"], axis=0)}
        return energy(batch["x"]) - energy(jax.lax.stop_gradient(rows["x"])), (new_state, {})

    return Model(
        init, (Objective("energy", loss, turns),), sample=None, sync={"chains": Rows(per_step), "seen": Mean()}
    )


def data():
    """Batches [calls, steps per call, batch, 3]."""
    return np.random.default_rng(0).normal(1.0, 1.0, (CALLS, STEPS_PER_CALL, BATCH, 3)).astype(np.float32)


def train(strategy, chains_model, *, start=None, first=0, calls=CALLS):
    """Returns the state after each call."""
    if start is None:
        start = state.create(chains_model, OPTIMIZERS, jax.random.key(3), {"x": data()[0, 0]})
    current, states = strategy.place(start), []
    compiled = strategy.compile(step.make_train_step(chains_model, OPTIMIZERS, seed=5, axis_name=strategy.axis_name))
    index, count = strategy.shard
    own = slice(index * BATCH // count, (index + 1) * BATCH // count)
    for x in data()[first : first + calls]:
        current, _ = compiled(current, strategy.place_batches({"x": x[:, own]}))
        states.append(jax.device_get(parallel.local(current)))
    return states


def main(address: str, num_processes: int, process: int) -> None:
    """Trains under pmap as one of several processes and prints the bytes of the last state."""
    jax.distributed.initialize(address, num_processes, process)
    last = train(parallel.pmap(), model())[-1]
    print(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(last)).hex())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
