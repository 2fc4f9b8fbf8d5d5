"""How fast flows train and sample: gm_jax compared with the `normflows` package on PyTorch.

    pip install -e '.[benchmarks]'            # PyTorch, normflows
    python -m benchmarks.flow_training        # about ten minutes on an idle machine

Glow has 32 x 32 x 3 images, L = 2 scales of K = 8 steps, 64 channels in the couplings and batch size 32. RealNVP in the
plane has 64 couplings with perceptrons 1-4-2, an actnorm after each pair, and batch size 512. A step is forward,
backward and Adam at 1e-3, float32, on a new batch from host memory; Glow dequantises in the step. gm_jax runs what an
experiment runs: the model's objective in `make_train_step`, compiled by `parallel.jit`, fed by `data.pipeline`.
normflows runs `torch_flows`, eager, with the same structure; only its priors differ, which have a mean and a scale per
dimension, while ours are convolutions of the other part. Before anything is timed, both sides must give the same loss
and the same gradients of all networks in the couplings.

The row "gm_jax" uses the XLA flags of experiments (`gm_jax.runner.xla_flags`), and the goals apply to it: by default
jaxlib 0.10.2 runs a convolution in one thread on a CPU. The next row shows the speed without these flags.
"""

import itertools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from benchmarks import command, comparison, timing, train_step

if TYPE_CHECKING:
    from gm_jax.models.flow import Flow
    from gm_jax.types import Array

TOLERANCE = 1e-4
NUM_SAMPLES = 1000


class Work(NamedTuple):
    """A flow to train, with its goals.

    Attributes:
        title: description of the flow.
        flow: the kind of flow.
        batch_size: examples per step.
        steps: steps in one call of our step.
        at_least: the goal for normflows' time over ours.
        most_compile_seconds: the goal for compiling our step.
        convolutional: whether XLA's flags matter.
    """

    title: str
    flow: Literal["glow", "realnvp"]
    batch_size: int
    steps: int
    at_least: float
    most_compile_seconds: float
    convolutional: bool

    def __str__(self) -> str:
        return f"{self.title}, batch {self.batch_size}, {self.steps} step{'s' * (self.steps > 1)} per call"


GLOW = Work("Glow 32x32x3, K = 8, L = 2, 64 channels", "glow", 32, 1, 0.9, 6.0, convolutional=True)
REALNVP = Work("RealNVP of the plane, 64 couplings 1-4-2", "realnvp", 512, 10, 12.0, 4.0, convolutional=False)


class Args(command.FlaggedArgs):
    """Time the training and the sampling of flows in gm_jax and in normflows."""


def data(work: Work) -> np.ndarray:
    """Makes images [N, 32, 32, 3] uint8 of a few hidden causes, or points [N, 2]."""
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((5_000, 4), np.float32)
    if work.flow == "realnvp":
        return causes[:, :2] * np.exp(0.3 * causes[:, 2:])
    levels = 128.0 + 30.0 * causes @ rng.standard_normal((4, 32 * 32 * 3), np.float32)
    return np.clip(levels, 0, 255).astype(np.uint8).reshape(-1, 32, 32, 3)


def model(work: Work) -> "Flow":
    """Builds the flow that experiments/{glow,realnvp}.py builds at this size."""
    from gm_jax.models import flow
    from gm_jax.networks.glow import Glow
    from gm_jax.networks.realnvp import RealNVP

    if work.flow == "glow":
        network = Glow((32, 32, 3), scales=2, steps=8, features=64)
        dequantization = flow.uniform_dequantization(levels=256)
    else:
        network, dequantization = RealNVP((2,), (4,), 32), flow.no_dequantization()
    return flow.Flow(network=network, prior=flow.standard_normal(), dequantization=dequantization)


def variables(work: Work) -> dict[str, Any]:
    """Draws variables for which both sides are the same function: random, but 0 for log-scales and priors."""
    import jax

    def draw(path: tuple, leaf: jax.Array) -> np.ndarray:
        names, rng = [part.key for part in path], np.random.default_rng(len(str(path)))
        drawn = (0.03 * rng.standard_normal(leaf.shape)).astype(np.float32)
        if names[0] == "fixed" or names[-1] in ("lower", "upper"):
            return np.asarray(leaf)
        if names[-1] == "log_abs_diagonal":
            return np.asarray(leaf) + drawn
        if "layer" not in names:  # the priors, for which the two sides have different networks
            return np.zeros_like(drawn)
        if names[-2] == ("Conv_1" if work.flow == "glow" else "Dense_1"):
            drawn[..., leaf.shape[-1] // 2 :] = 0.0
        return drawn

    params, model_state = jax.jit(model(work).model.init)(jax.random.key(0), {"x": data(work)[: work.batch_size]})
    return jax.tree_util.tree_map_with_path(draw, {"params": params["flow"], **model_state})


def coupling_grads(work: Work, grads: dict[str, Any]) -> list[np.ndarray]:
    """Lists the gradients of each coupling, from data to latents: hidden layers, then the shifts of the last layer."""
    if work.flow == "glow":
        scales = (grads["multi_scale"][f"stages_{level}"]["layers_1"]["layer"]["layers_2"] for level in range(2))
        networks = [(scale["network"],) for scale in scales]
        names = ("Conv_0", "Dense_0", "Conv_1")
    else:
        layer = grads["layers"]["layer"]
        networks, names = [(layer["layers_0"]["network"], layer["layers_1"]["network"])], ("Dense_0", "Dense_1")
    found = []
    for stacks in networks:
        for k, network in itertools.product(range(len(stacks[0][names[0]]["bias"])), stacks):
            arrays = [np.asarray(network[name][part][k]) for name in names for part in ("kernel", "bias")]
            if work.flow == "glow":
                arrays[2] = arrays[2][None, None]
            half = arrays[-1].shape[-1] // 2
            found += [*arrays[:-2], arrays[-2][..., :half], arrays[-1][:half]]
    return found


def evaluate(work: Work) -> tuple[dict[str, Any], np.ndarray, float, list[np.ndarray]]:
    """Returns our variables, prepared data, their loss, and its gradients in the order of `coupling_grads`."""
    import jax
    import jax.numpy as jnp

    flow, both = model(work), variables(work)
    x = data(work)[:8].astype(np.float32)
    h = x / 256.0 - 0.5 if work.flow == "glow" else x

    def loss(params: Any) -> "Array":
        return -jnp.mean(flow.log_density({"flow": params}, {k: v for k, v in both.items() if k != "params"}, h))

    value, grads = jax.jit(jax.value_and_grad(loss))(both["params"])
    return both, h, float(value), coupling_grads(work, grads)


def check_parity(work: Work) -> tuple[dict[str, Any], dict[str, float]]:
    """Checks that both programs compute the same.

    Returns:
        Our variables, and the relative differences of normflows' loss and gradients from ours (for gradients, that of
        the worst array).

    Raises:
        RuntimeError: they differ by more than TOLERANCE.
    """
    from benchmarks import torch_flows

    both, h, loss, grads = timing.in_own_process(evaluate, work)
    evaluate_theirs = {"glow": torch_flows.glow_loss_and_grads, "realnvp": torch_flows.realnvp_loss_and_grads}
    their_loss, their_grads = timing.in_own_process(evaluate_theirs[work.flow], both, h)
    largest = max(float(np.linalg.norm(own)) for own in grads)
    worst = max(
        float(np.linalg.norm(theirs - own) / max(np.linalg.norm(own), 1e-3 * largest))
        for theirs, own in zip(their_grads, grads, strict=True)
    )
    differences = {"loss": abs(their_loss - loss) / abs(loss), "gradients": worst}
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(f"the flows differ: relative differences {differences}, at most {TOLERANCE} is allowed")
    return both, differences


def training(work: Work, both: dict[str, Any]) -> train_step.Training:
    """Describes the training from given variables."""
    return train_step.Training(
        model(work).model,
        {"x": data(work)},
        work.batch_size,
        work.steps,
        params={"flow": both["params"]},
        model_state={name: leaves for name, leaves in both.items() if name != "params"},
    )


def make_samples(work: Work, both: dict[str, Any], xla_flags: str) -> timing.Run:
    """Makes the sampler; a unit of work is NUM_SAMPLES images, uint8."""
    timing.add_xla_flags(xla_flags)
    import jax

    sample = jax.jit(model(work).model.sample, static_argnums=3)
    params, model_state = {"flow": both["params"]}, {name: both[name] for name in both if name != "params"}
    keys = itertools.count()

    def run(calls: int) -> None:
        for seed in itertools.islice(keys, calls):
            jax.block_until_ready(sample(params, model_state, jax.random.key(seed), NUM_SAMPLES))

    return run


def measure_flow(work: Work, args: Args) -> dict[str, Any]:
    """Checks parity, then measures compile time, training, and for Glow sampling."""
    from benchmarks import torch_flows

    both, differences = check_parity(work)
    flags = comparison.flags_of_ours(args.experiment_flags, matter=work.convolutional)
    compiling = train_step.compiling(training, (work, both), flags)
    ours = train_step.cases(training, (work, both), flags)
    rate = train_step.LEARNING_RATE
    if work.flow == "glow":
        theirs = timing.Case(torch_flows.make_glow_steps, both, data(work), work.batch_size, rate)
    else:
        theirs = timing.Case(torch_flows.make_realnvp_steps, both, data(work), work.batch_size, work.steps, rate)
    peer = {"normflows": theirs}
    tables = {"step": comparison.compare(str(work), ours, peer, args, at_least=work.at_least, units=work.steps)}
    if work.flow == "glow":
        samplers = {name: timing.Case(make_samples, work, both, flag) for name, flag in flags.items()}
        peer = {"normflows": timing.Case(torch_flows.make_glow_samples, both, 32, 3, NUM_SAMPLES)}
        tables["samples"] = comparison.compare(f"{NUM_SAMPLES:,} samples of Glow", samplers, peer, args)
    return {"work": work._asdict(), "parity": differences, "compile_seconds": compiling, **tables}


def compile_verdict(name: str, seconds: float, work: dict[str, Any]) -> str:
    """Formats the goal for compiling what experiments run, and whether it is met."""
    most = work["most_compile_seconds"]
    return f"at most {most:g}: {'met' if seconds <= most else 'missed'}" if name == comparison.OURS else "-"


def measure(args: Args) -> dict[str, Any]:
    """Measures both flows."""
    return {"flows": [measure_flow(work, args) for work in (GLOW, REALNVP)]}


def report(results: dict[str, Any]) -> str:
    """Formats the results as Markdown."""
    tables = [result[name] for result in results["flows"] for name in ("step", "samples") if name in result]
    compiling = [
        [result["work"]["title"], name, f"{seconds:.1f}", compile_verdict(name, seconds, result["work"])]
        for result in results["flows"]
        for name, seconds in result["compile_seconds"].items()
    ]
    worst = {name: max(result["parity"][name] for result in results["flows"]) for name in ("loss", "gradients")}
    parity = "Same parameters and data: the loss differs by {loss:.0e}, gradients by at most {gradients:.0e}."
    return "\n\n".join(
        [
            "Forward, backward and Adam, float32, time of one step; medians of clean rounds (range):",
            comparison.table(tables),
            "Compiling our step, seconds, once:",
            timing.table(["flow", "ours", "seconds", "goal"], compiling),
            parity.format(**worst),
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.flow_training", Args, measure, report, against="normflows")
