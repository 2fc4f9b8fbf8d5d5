import jax
import pytest

from benchmarks import latent_sampling


@pytest.mark.parametrize("name", [latent_sampling.LATENT, latent_sampling.PIXEL])
def test_a_unit_of_work_draws_all_samples(name, monkeypatch):
    drawn = []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: drawn.append(x) or wait(x))
    latent_sampling.make_run(name, 2)(1)
    assert drawn[-1].shape == (latent_sampling.NUM_SAMPLES, 8, 8, 1)
