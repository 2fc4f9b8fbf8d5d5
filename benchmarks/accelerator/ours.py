"""Our side of the speed table: train steps as experiments run them, and samplers.

Each function returns (run, facts), as `workers.Case.make` does. A unit of work of a train step is one call of the
compiled step on new batches from host memory.
"""

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gm_jax.models.diffusion import Diffusion

Made = tuple[Callable[[int], None], dict[str, Any]]


def matmul(dtype: str, side: int) -> Made:
    """Products of two square matrices of random numbers: the peak with which the others are compared."""
    import jax

    a, b = (jax.random.normal(jax.random.key(seed), (side, side), dtype) for seed in (0, 1))
    multiply = jax.jit(lambda a, b: a @ b)
    multiply(a, b).block_until_ready()

    def run(count: int) -> None:
        product = None
        for _ in range(count):
            product = multiply(a, b)
        if product is not None:
            product.block_until_ready()

    return run, {}


def train(training: Any, strategy: str = "jit") -> Made:
    """The step of a `train_step.Training`."""
    import jax

    from benchmarks import train_step

    state, step, batches = train_step.ready(training, strategy)
    started = time.perf_counter()
    compiled = step.lower(state, batches(0)).compile()
    facts: dict[str, Any] = {"compile_seconds": round(time.perf_counter() - started, 1)}
    facts["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    analysis = compiled.memory_analysis()
    if analysis is not None:
        facts["temp_gb"] = round(analysis.temp_size_in_bytes / 1e9, 3)
    first_steps = itertools.count(0, training.steps)

    def run(count: int) -> None:
        nonlocal state
        for first in itertools.islice(first_steps, count):
            state, _ = compiled(state, batches(first))
        jax.block_until_ready(state)

    run(3)
    return run, facts


def images(count: int = 4_096, side: int = 32, channels: int = 3) -> np.ndarray:
    """Random images [N, side, side, channels] uint8: the time of a step does not depend on what they show."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


def ddpm_model(dtype: str | None, *, tiny: bool) -> "Diffusion":
    """DDPM's network for CIFAR-10, with 35,744,771 parameters."""
    from gm_jax.models import diffusion, diffusion_space
    from gm_jax.networks.unet import UNet
    from gm_jax.ops import diffusion_process
    from gm_jax.samplers.ddim import ddim

    schedule = diffusion_process.linear_schedule(1000)
    features, blocks, groups = ((8, 16), 1, 4) if tiny else ((128, 256, 256, 256), 2, 32)
    return diffusion.Diffusion(
        network=UNet(features, blocks, (1,), groups=groups, dropout=0.1, dtype=dtype),
        space=diffusion_space.pixels(levels=256),
        schedule=schedule,
        shape=(32, 32, 3),
        parameterization=diffusion.noise_prediction(),
        sampler=ddim(schedule, 2 if tiny else 50),
        variance_fn=diffusion_process.posterior_variance,
    )


def ddpm(batch: int, *, dtype: str | None = "bfloat16", strategy: str = "jit", tiny: bool = False) -> Made:
    """A step of DDPM on CIFAR-10."""
    from benchmarks import train_step

    model = ddpm_model(dtype, tiny=tiny).model
    return train(train_step.Training(model, {"x": images()}, 2 if tiny else batch), strategy)


def ddim(count: int, *, tiny: bool = False) -> Made:
    """DDIM's 50 steps of the same network."""
    import jax

    model = ddpm_model("bfloat16", tiny=tiny).model
    params, model_state = jax.jit(model.init)(jax.random.key(0), {"x": images(2)})
    return _sampling(model.sample, params, model_state, 2 if tiny else count)


def glow(batch: int, *, big: bool, dtype: str | None = None, tiny: bool = False) -> Made:
    """A step of Glow on images of 32 x 32: as published for CIFAR-10, or small."""
    from benchmarks import train_step
    from gm_jax.models import flow
    from gm_jax.networks.glow import Glow

    scales, steps, features = (3, 32, 512) if big else (2, 8, 64)
    network = Glow((32, 32, 3), *((1, 1, 4) if tiny else (scales, steps, features)), dtype=dtype)
    dequantization = flow.uniform_dequantization(levels=256)
    model = flow.Flow(network=network, prior=flow.standard_normal(), dequantization=dequantization).model
    return train(train_step.Training(model, {"x": images()}, 2 if tiny else batch))


def realnvp(batch: int, *, tiny: bool = False) -> Made:
    """Ten steps of RealNVP of the plane."""
    from benchmarks import flow_training, train_step

    model = flow_training.model(flow_training.REALNVP).model
    x = np.random.default_rng(0).normal(size=(4_096, 2)).astype(np.float32)
    return train(train_step.Training(model, {"x": x}, 4 if tiny else batch, 10))


def autoregressive(name: str, batch: int, *, strategy: str = "jit", tiny: bool = False) -> Made:
    """Ten steps of a network of `torch_parity`."""
    from benchmarks import torch_parity, train_step, vae_training
    from gm_jax.models import autoregressive

    pair = pair_of(name, tiny)
    family = autoregressive.Autoregressive(
        network=torch_parity.network(pair), likelihood=torch_parity.output(pair), shape=pair.shape
    )
    x = vae_training.images(vae_training.PAPER._replace(side=pair.shape[0]))
    return train(train_step.Training(family.model, {"x": x}, 4 if tiny else batch, 10), strategy)


def vae(batch: int, *, strategy: str = "jit", tiny: bool = False) -> Made:
    """Ten steps of the VAE of 784-500-500-50."""
    from benchmarks import vae_training

    size = vae_training.TINY if tiny else vae_training.PAPER
    return train(vae_training.training(vae_training.Work(size, 4 if tiny else batch, 10)), strategy)


def dcgan(batch: int, *, strategy: str = "jit", tiny: bool = False) -> Made:
    """A step of both players of a DCGAN."""
    from benchmarks import gan_case, train_step

    return train(train_step.Training(gan_case.model(), {"x": gan_case.data()}, 4 if tiny else batch, b1=0.5), strategy)


def cached(name: str, count: int, *, tiny: bool = False) -> Made:
    """The cached sampler of an autoregressive network."""
    import jax

    from benchmarks import torch_parity
    from gm_jax.models import autoregressive

    pair = pair_of(name, tiny)
    family = autoregressive.Autoregressive(
        network=torch_parity.network(pair), likelihood=torch_parity.output(pair), shape=pair.shape
    )
    params = {"autoregressive": jax.device_put(torch_parity.parameters(pair))}
    return _sampling(family.model.sample, params, {}, 2 if tiny else count)


def _sampling(sample: Callable, params: Any, model_state: Any, count: int) -> Made:
    import jax

    draw = jax.jit(sample, static_argnums=3)
    started, seeds = time.perf_counter(), itertools.count()
    jax.block_until_ready(draw(params, model_state, jax.random.key(next(seeds)), count))
    facts = {"first_call_seconds": round(time.perf_counter() - started, 1)}

    def run(calls: int) -> None:
        for seed in itertools.islice(seeds, calls):
            jax.block_until_ready(draw(params, model_state, jax.random.key(seed), count))

    return run, facts


def pair_of(name: str, tiny: bool) -> Any:
    """Returns a pair of networks of `torch_parity`, or a small one."""
    from benchmarks import torch_parity

    pair = getattr(torch_parity, name)
    if not tiny:
        return pair
    small = {
        "side": 4,
        "num_dims": 16,
        "hidden": 8,
        "features": 4,
        "layers": 1,
        "first_size": 3,
        "length": 8,
        "skip": 4,
    }
    return pair._replace(sizes={key: small.get(key, size) for key, size in pair.sizes.items()})
