"""The GIFs of a run: samples over the training, and the chain of a diffusion model from noise to samples."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import signals
from gm_jax.models.diffusion import Diffusion
from gm_jax.plotting import animation
from gm_jax.runner.run import Run
from gm_jax.training.state import TrainState

_CHAINS = 25


def draw_animations(run: Run, state: TrainState, *, seed: int) -> list[Path]:
    """Writes over_time.gif and, for a diffusion model of images, chain.gif; returns their paths.

    Args:
        run: whose samples over time are in its folder.
        state: on this process alone.
        seed: of the chains.
    Raises:
        KeyboardInterrupt: a signal has asked this process to stop.
    """
    paths = []
    over_time = sorted(run.folder.samples.glob("step-*.png"))
    if len(over_time) > 1:
        paths.append(animation.join(run.folder.root / "over_time.gif", over_time))
    family, levels = run.experiment.family, run.spec.levels
    if isinstance(family, Diffusion) and len(family.shape) == 3 and levels is not None:
        signals.check()
        draw = jax.jit(family.trajectory, static_argnums=3)
        chain = draw(state.eval_params, state.model_state, jax.random.key(seed), _CHAINS)
        states = jax.vmap(family.space.to_data)(jnp.concatenate([chain.x_t, chain.x_0[None]]))
        paths.append(animation.write(run.folder.root / "chain.gif", list(np.asarray(states)), levels=levels))
    return paths
