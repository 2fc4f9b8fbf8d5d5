"""Steps of Markov chains and an epoch of a restricted Boltzmann machine, compared with blackjax and scikit-learn.

    pip install -e '.[dev]'                   # blackjax; scikit-learn is installed with gm_jax
    python -m benchmarks.energy_models        # about five minutes on an idle machine

Kernels: 256 chains of MALA and of Hamiltonian Monte Carlo (5 leapfrog steps) on the same energy, a perceptron of 16
dimensions; a unit of work is 100 steps of all chains. Both sides compute one gradient per leapfrog step, and their
stationary moments agree (`tests/samplers/test_langevin.py`).

Machine: 784 visible and 500 hidden units, persistent contrastive divergence with one sweep, 100 chains, batches of 100;
a unit of work is an epoch of 2,000 examples. Both sides have the same free energy (`tests/models/test_rbm.py`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import command, comparison, timing

CHAINS, DIMS, STEPS, LEAPFROG = 256, 16, 100, 5
STEP_SIZES = {"MALA": 0.05, "HMC": 0.1}
VISIBLE, HIDDEN, BATCH, EXAMPLES = 784, 500, 100, 2_000
AT_LEAST = {"MALA": 1.0, "HMC": 1.0, "RBM": 3.0}


@dataclasses.dataclass(frozen=True)
class Args(command.Args):
    """Time Markov chains against blackjax, and an RBM against scikit-learn."""


def make_ours(name: str) -> timing.Run:
    """Returns run(count), which takes STEPS steps of all chains `count` times."""
    import jax

    from gm_jax.samplers import langevin

    energy_fn, start = _energy()
    settings: dict[str, Any] = {"num_steps": STEPS, "step_size": STEP_SIZES[name]}
    if name == "HMC":
        settings["num_leapfrog"] = LEAPFROG
    kernel: Callable = {"MALA": langevin.mala, "HMC": langevin.hmc}[name]
    return _run(jax.jit(lambda key, x: kernel(key, x, energy_fn, **settings)[0]), start)


def make_blackjax(name: str) -> timing.Run:
    """Returns run(count), which does the same work with blackjax, as its documentation maps many chains."""
    import blackjax
    import jax
    import jax.numpy as jnp

    energy_fn, start = _energy()

    def log_density(x: Any) -> Any:
        return -energy_fn(x[None])[0]

    kernel = {
        "MALA": lambda: blackjax.mala(log_density, 0.5 * STEP_SIZES["MALA"]),
        "HMC": lambda: blackjax.hmc(log_density, STEP_SIZES["HMC"], jnp.ones(DIMS), LEAPFROG),
    }[name]()

    def steps(key: Any, x: Any) -> Any:
        def step(states: Any, key: Any) -> tuple[Any, None]:
            return jax.vmap(kernel.step)(jax.random.split(key, CHAINS), states)[0], None

        return jax.lax.scan(step, jax.vmap(kernel.init)(x), jax.random.split(key, STEPS))[0].position

    return _run(jax.jit(steps), start)


def make_our_rbm() -> timing.Run:
    """Returns run(count), which trains an RBM for `count` epochs."""
    import jax
    import optax

    from gm_jax.models.rbm import RestrictedBoltzmannMachine
    from gm_jax.networks.rbm import RBM
    from gm_jax.ops import binarization
    from gm_jax.training import parallel, state, step

    family = RestrictedBoltzmannMachine(
        network=RBM(VISIBLE, HIDDEN),
        binarize=lambda key, x: binarization.static(x),
        levels=2,
        shape=(VISIBLE,),
        num_chains=BATCH,
    )
    optimizers, strategy, x = {"rbm": optax.sgd(0.1)}, parallel.jit(jax.devices()[:1]), data()
    current = strategy.place(state.create(family.model, optimizers, jax.random.key(0), {"x": x[:BATCH]}))
    compiled = strategy.compile(step.make_train_step(family.model, optimizers, seed=0))
    batches = strategy.place_batches({"x": x.reshape(-1, BATCH, VISIBLE)})

    def run(count: int) -> None:
        nonlocal current
        for _ in range(count):
            current, _ = compiled(current, batches)
        jax.block_until_ready(current)

    return run


def make_scikit_learn() -> timing.Run:
    """Returns run(count), which trains scikit-learn's machine for `count` epochs."""
    from sklearn.neural_network import BernoulliRBM

    x = data().astype(np.float32)

    def run(count: int) -> None:
        BernoulliRBM(HIDDEN, learning_rate=0.1, batch_size=BATCH, n_iter=count, random_state=0).fit(x)

    return run


def data() -> np.ndarray:
    """Returns EXAMPLES random examples of 0 and 1, of which a fifth is 1, as in MNIST."""
    return (np.random.default_rng(0).random((EXAMPLES, VISIBLE)) < 0.2).astype(np.uint8)


def _energy() -> tuple[Callable, Any]:
    """Returns an energy of [B, DIMS] and the starts of the chains."""
    import jax
    import jax.numpy as jnp

    from gm_jax.networks.energy import EnergyMLP

    network, x = EnergyMLP((64, 64)), jax.random.normal(jax.random.key(1), (CHAINS, DIMS))
    variables = network.init(jax.random.key(0), x, train=False)

    def energy_fn(x: Any) -> Any:
        return network.apply(variables, x, train=False) + 0.5 * jnp.sum(jnp.square(x), axis=1)

    return energy_fn, x


def _run(compiled: Callable, x: Any) -> timing.Run:
    import jax

    key = jax.random.key(2)

    def run(count: int) -> None:
        moved = x
        for _ in range(count):
            moved = compiled(key, moved)
        jax.block_until_ready(moved)

    return run


def measure(args: Args) -> dict[str, Any]:
    """Times each kernel and the machine in turns with its peer."""
    found = [
        comparison.compare(
            f"{name}, {STEPS} steps of {CHAINS} chains",
            {comparison.OURS: timing.Case(make_ours, name)},
            {"blackjax": timing.Case(make_blackjax, name)},
            args,
            at_least=AT_LEAST[name],
        )
        for name in STEP_SIZES
    ]
    machine = comparison.compare(
        f"RBM {VISIBLE}-{HIDDEN}, an epoch of {EXAMPLES:,}",
        {comparison.OURS: timing.Case(make_our_rbm)},
        {"scikit-learn": timing.Case(make_scikit_learn)},
        args,
        at_least=AT_LEAST["RBM"],
    )
    return {"comparisons": [*found, machine]}


def report(results: dict[str, Any]) -> str:
    """Returns the comparisons as a Markdown table."""
    return comparison.table(results["comparisons"])


if __name__ == "__main__":
    command.main(__spec__.name, Args, measure, report, against="blackjax")
