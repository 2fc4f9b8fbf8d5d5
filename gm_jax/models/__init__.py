"""One family a file: networks, losses and samplers put together to a `Model`, the whole algorithm top to bottom.

vae.py             variational autoencoders: ELBO, beta-VAE, importance-weighted
observations.py    what a decoder's outputs mean: Bernoulli, normal, discretised logistic
latent_space.py    reconstructions, interpolations, traversals
autoregressive.py  exact likelihoods by the chain rule: one ordering or a mixture of several, labels, completions
conditionals.py    networks of the conditionals, and what their outputs mean: Bernoulli, categorical
raster.py          networks in raster order: PixelCNN, PixelRNN, WaveNet; mixtures of logistics as outputs
flow.py            normalizing flows: exact likelihoods by a change of variables, priors, dequantised data
gan.py             generator and discriminator, feature matching, historical averaging, density by kernels
adversarial_objectives.py  their losses: non-saturating, hinge, least squares, Wasserstein; penalties
"""
