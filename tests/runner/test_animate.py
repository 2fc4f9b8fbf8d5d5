"""The GIFs of a run."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gm_jax.models import diffusion, diffusion_space
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.plotting import images
from gm_jax.runner import animate
from gm_jax.samplers.ddim import ddim
from gm_jax.training.state import TrainState


def frames_of(path):
    with Image.open(path) as picture:
        found = []
        for index in range(picture.n_frames):
            picture.seek(index)
            found.append(np.asarray(picture.convert("RGB")))
    return found


def make_run(folder, family, *, drawn):
    samples = folder / "samples"
    samples.mkdir()
    for step in range(drawn):
        Image.new("RGB", (64, 32), (80 * step,) * 3).save(samples / f"step-{step:07d}.png")
    return types.SimpleNamespace(
        folder=types.SimpleNamespace(root=folder, samples=samples),
        experiment=types.SimpleNamespace(family=family),
        spec=types.SimpleNamespace(levels=17),
    )


def test_the_chain_of_a_diffusion_model_ends_at_its_samples(tmp_path):
    schedule = diffusion_process.cosine_schedule(12)
    family = diffusion.Diffusion(
        network=DiffusionMLP(8, 1),
        space=diffusion_space.pixels(levels=17),
        schedule=schedule,
        shape=(4, 4, 1),
        parameterization=diffusion.noise_prediction(),
        sampler=ddim(schedule, 5),
        variance_fn=diffusion_process.posterior_variance,
    )
    params, model_state = family.model.init(jax.random.key(0), {"x": jnp.zeros((1, 4, 4, 1), jnp.uint8)})
    state = TrainState(jnp.int32(0), params, None, {}, model_state)
    paths = animate.draw_animations(make_run(tmp_path, family, drawn=0), state, seed=3)
    assert [path.name for path in paths] == ["chain.gif"]
    frames = frames_of(paths[0])
    assert len(frames) == 6  # five states and the samples
    last = family.model.sample(params, model_state, jax.random.key(3), 25)
    np.testing.assert_array_equal(frames[-1], images.grid_image(images.as_grid(np.asarray(last)), 17))
    assert (frames[0] != frames[-1]).any()


def test_samples_over_time_are_joined_if_there_are_two(tmp_path):
    assert animate.draw_animations(make_run(tmp_path, None, drawn=1), None, seed=0) == []
    (tmp_path / "b").mkdir()
    (path,) = animate.draw_animations(make_run(tmp_path / "b", None, drawn=3), None, seed=0)
    assert path.name == "over_time.gif"
    assert [int(frame[0, 0, 0]) for frame in frames_of(path)] == [0, 80, 160]
