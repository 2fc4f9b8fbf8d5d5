"""The class against the function that it replaces: equal bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.models import decoder_likelihoods, vae
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.ops import binarization
from tests.models import old_decoder_likelihoods, old_vae

LIKELIHOODS = {
    **{
        f"bernoulli {n}": (
            lambda m, n=n: m.bernoulli(
                lambda key, x: binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=n), levels=n
            ),
            n,
            (4, 4, 1),
        )
        for n in (2, 17, 256)
    },
    **{f"normal {n}": (lambda m, n=n: m.normal(levels=n), n, (4, 4, 1)) for n in (2, 17, 256)},
    "normal fixed": (lambda m: m.normal(levels=17, log_var=-2.0), 17, (4, 4, 1)),
    "normal points": (lambda m: m.normal(levels=None), None, (2,)),
    **{f"logistic {n}": (lambda m, n=n: m.discretized_logistic(levels=n), n, (4, 4, 3)) for n in (2, 17, 256)},
}
OBJECTIVES = {
    "elbo": lambda m: m.elbo_objective(beta=2.0, num_samples=2),
    "iwae": lambda m: m.iwae_objective(num_samples=3),
    "resampled": lambda m: m.resampled_iwae_objective(num_samples=3, num_resampled=2),
}


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_class_is_the_factory_bit_for_bit(name, objective):
    make, levels, shape = LIKELIHOODS[name]
    if objective != "elbo" and "17" not in name:
        pytest.skip("one is enough")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, *shape)).astype(np.float32) if levels is None else rng.integers(0, levels, (6, *shape))
    x = jnp.asarray(x, jnp.float32 if levels is None else jnp.uint8)
    new_p, old_p = make(decoder_likelihoods), make(old_decoder_likelihoods)
    encoder, decoder = MLPEncoder((16,), 3), MLPDecoder((16,), shape, new_p.outputs_per_dim)
    settings = {"latent_dim": 3, "num_importance_samples": 7, "num_elbo_samples": 5, "chunk_size": 3}
    new = vae.VAE(encoder=encoder, decoder=decoder, likelihood=new_p, objective=OBJECTIVES[objective](vae), **settings)
    old = old_vae.vae(encoder, decoder, old_p, objective=OBJECTIVES[objective](old_vae), **settings)
    key, batch = jax.random.key(3), {"x": x}
    for wrap in (lambda f, **_: f, jax.jit):
        params = wrap(old.model.init)(key, batch)
        same(wrap(new.model.init)(key, batch), params)
        params = jax.tree.map(lambda leaf: leaf + 0.1, params[0])
        grad = lambda m: jax.value_and_grad(m.objectives[0].loss, has_aux=True)  # noqa: E731
        same(wrap(grad(new.model))(params, {}, key, batch), wrap(grad(old.model))(params, {}, key, batch))
        same(wrap(new.model.log_prob)(params, {}, key, x), wrap(old.model.log_prob)(params, {}, key, x))
        same(wrap(new.elbo)(params, {}, key, x), wrap(old.elbo)(params, {}, key, x))
        for one, other in ((new.model.sample, old.model.sample), (new.sample_mean, old.sample_mean)):
            same(wrap(one, static_argnums=3)(params, {}, key, 5), wrap(other, static_argnums=3)(params, {}, key, 5))
        z = wrap(new.encode)(params, key, x)
        same(z, wrap(old.encode)(params, key, x))
        same(wrap(new.decode)(params, z[0]), wrap(old.decode)(params, z[0]))
