import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import flow
from gm_jax.networks.nice import NICE
from gm_jax.plotting import flow as plotting


def images(num=6):
    return jnp.asarray(np.random.default_rng(3).integers(0, 17, (num, 4, 4, 1)), jnp.uint8)


def of_images(alpha=None):
    return flow.Flow(
        network=NICE((4, 4, 1), (8,)),
        prior=flow.standard_logistic(),
        dequantization=flow.uniform_dequantization(levels=17, alpha=alpha),
    )


def random_variables(model, x, scale=0.3):
    """(params, model_state) of the right shapes, all non-zero, without compiling init."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.model.init, jax.random.key(0), {"x": x})
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def test_interpolations_start_and_end_with_the_data():
    model, x = of_images(alpha=0.05), images()
    params, model_state = random_variables(model, x, scale=0.2)
    lines = jax.jit(lambda a, b: plotting.interpolate(model, params, model_state, jax.random.key(0), a, b, num=5))
    found = lines(x[:3], x[3:])
    assert found.shape == (3, 5, 4, 4, 1)
    np.testing.assert_array_equal(found[:, 0], x[:3])
    np.testing.assert_array_equal(found[:, -1], x[3:])
    assert np.any(found[:, 2] != found[:, 1])


def test_grids_have_rows_and_columns_of_images():
    model, x = of_images(), images(20)
    params, model_state = random_variables(model, x, scale=0.2)
    found = {
        name: jax.eval_shape(picture, params, model_state, jax.random.key(0), x)
        for name, picture in plotting.grids(model, (4, 4, 1)).items()
    }
    assert found["temperatures"].examples.shape == (7, 10, 4, 4, 1)
    assert found["temperatures"].rows == tuple(f"T = {t:g}" for t in plotting.TEMPERATURES)
    assert found["interpolations"].examples.shape == (10, 10, 4, 4, 1)
    assert found["interpolations"].columns[0] == found["interpolations"].columns[-1] == "data"
    assert plotting.grids(model, (2,)) == {}
