import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models import second_stage


def test_the_second_network_is_a_copy_that_alone_gets_the_gradient():
    params = second_stage.difference({"first": {"w": jnp.arange(3.0)}}, "first", "second")
    np.testing.assert_array_equal(params["second"]["w"], np.zeros(3))
    params["second"]["w"] = jnp.ones(3)

    def loss(params):
        return jnp.sum(jnp.square(second_stage.second_params(params, "first", "second")["first"]["w"]))

    gradient = jax.grad(loss)(params)
    np.testing.assert_array_equal(gradient["second"]["w"], 2 * np.arange(1.0, 4.0))
    np.testing.assert_array_equal(gradient["first"]["w"], np.zeros(3))
