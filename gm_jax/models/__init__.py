"""One family a file: networks, losses and samplers put together to a `Model`, the whole algorithm top to bottom.

vae.py             variational autoencoders: ELBO, beta-VAE, importance-weighted
observations.py    what a decoder's outputs mean: Bernoulli, normal, discretised logistic
latent_space.py    reconstructions, interpolations, traversals
"""
