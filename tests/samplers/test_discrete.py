import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gm_jax.ops import transitions
from gm_jax.samplers import discrete

LEVELS, D = 3, 2
P = np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]])  # of two independent dimensions


def predict(x_t, t):
    """The best prediction of independent dimensions is their distribution itself, see `ops.transitions`, eq. (5)."""
    return jnp.broadcast_to(jnp.log(jnp.asarray(P)), (*x_t.shape, LEVELS))


def test_with_the_best_predictions_samples_have_the_distribution_of_the_data():
    n = 20_000
    for process in (
        transitions.uniform(np.array([0.3, 0.5, 1.0]), num_states=LEVELS),
        transitions.gaussian(np.array([0.3, 0.6, 1.0] + [1.0] * 20), num_states=LEVELS),
        transitions.absorbing(transitions.masking_betas(4), num_levels=LEVELS),
    ):
        draw = jax.jit(lambda key, process=process: discrete.ancestral(predict, process, key, n, D))
        x = np.asarray(draw(jax.random.key(0)))
        assert x.dtype == np.int32
        for dim in range(D):
            counts = np.bincount(x[:, dim], minlength=process.num_states)
            assert counts[LEVELS:].sum() == 0
            assert stats.chisquare(counts[:LEVELS], n * P[dim]).pvalue > 1e-3
