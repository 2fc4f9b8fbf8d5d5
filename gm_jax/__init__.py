"""Deep generative models in JAX. Nothing is imported here: `from gm_jax import losses` is as light as losses are."""
