"""The chains of a diffusion model as pictures: data into noise, noise into data, and what samples owe to the steps."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.diffusion import Diffusion, ddim
from gm_jax.ops import diffusion_process
from gm_jax.types import Array, Key, ModelState, Params

NUM_STEPS = (10, 20, 50, 100)  # of the picture, and T
WEIGHTS = (-1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # of guidance, in the picture; -1 is the model of no class


def chain_times(num_steps: int, num_times: int) -> np.ndarray:
    """Times from 0 to T, both included, for a picture: by their square roots, as most is seen to happen early."""
    return np.rint(num_steps * np.linspace(0.0, 1.0, num_times) ** 2).astype(np.int32)


def diffuse_along(model: Diffusion, key: Key, x: Array, times: Array) -> Array:
    """One chain of q(x_t | x_(t-1)) from each of x, seen at some times.

    Args:
        model: as `diffusion` makes it.
        key: noise.
        x: [B, ...] as the data set ships it.
        times: [N] rising, in 0 ... T.
    Returns:
        [B, N, ...] x_t.
    """
    x_0 = model.space.prepare(x)
    before = jnp.concatenate([jnp.zeros(1, times.dtype), times[:-1]])

    def move(x_s: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        log_alpha_bars = tuple(model.schedule.at(time) for time in now)
        mean = diffusion_process.transition_mean(x_s, *log_alpha_bars)
        std = jnp.sqrt(diffusion_process.transition_variance(*log_alpha_bars))
        x_t = mean + std * jax.random.normal(jax.random.fold_in(key, now[1]), x_s.shape, x_s.dtype)
        return x_t, x_t

    return jnp.moveaxis(jax.lax.scan(move, x_0, (before, times))[1], 0, 1)


def grids(model: Diffusion) -> Mapping[str, Callable]:
    """Pictures of images: functions (params, model_state, key, x) -> [rows, columns, *shape], as the data set ships it.

    forward_chain: ten of x, each becoming noise from left to right. reverse_chain: five samples, each from noise to
    data, x_t above and what is predicted of x_0 below. samples_by_steps: the same ten x_T in every row, by DDIM of
    10, 20, 50, 100 and T steps. Of models with labels also classes: a row of samples for each class; guidance: the
    same x_T for each class in every row, guided by each of WEIGHTS, from top to bottom.

    Args:
        model: as `diffusion` makes it; of anything but images there are no grids.
    """
    num_steps, to_data = model.schedule.num_steps, model.space.to_data
    times = chain_times(num_steps, 10)

    def forward_chain(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        return to_data(diffuse_along(model, key, x[:10], jnp.asarray(times)))

    def reverse_chain(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        chain = model.trajectory(params, model_state, key, 5)
        visited = len(chain.x_t)
        # The visited time nearest to each of the times, the last of which is the sample itself.
        steps = visited - np.rint(times[:0:-1] * (visited / num_steps)).astype(np.int32)
        steps = np.clip(steps, 0, visited - 1)
        x_t = jnp.concatenate([chain.x_t[steps], chain.x_0[None]])
        x0_hat = jnp.concatenate([chain.x0_hat[steps], chain.x_0[None]])
        rows = jnp.stack([x_t, x0_hat], axis=2)  # [10, 5, 2, ...]
        return to_data(jnp.moveaxis(rows, 0, 2).reshape(10, 10, *model.shape))

    def samples_by_steps(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        counts = [count for count in NUM_STEPS if count < num_steps] + [num_steps]
        rows = [model.sample(params, model_state, key, 10, sampler=ddim(model.schedule, n)) for n in counts]
        return jnp.stack(rows)

    def classes(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        label = jnp.repeat(jnp.arange(model.num_classes), 10)
        samples = model.sample(params, model_state, key, len(label), label=label)
        return samples.reshape(-1, 10, *model.shape)

    def guidance(params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        label = jnp.arange(model.num_classes)

        def row(weight: Array) -> Array:
            return model.sample(params, model_state, key, len(label), label=label, guidance=weight)

        return jax.vmap(row)(jnp.asarray(WEIGHTS))

    if len(model.shape) != 3:
        return {}
    named = {"forward_chain": forward_chain, "reverse_chain": reverse_chain, "samples_by_steps": samples_by_steps}
    return named if model.num_classes is None else {**named, "classes": classes, "guidance": guidance}
