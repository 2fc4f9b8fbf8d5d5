"""One family a file: networks, losses and samplers put together to a `Model`, the whole algorithm top to bottom.

vae.py             variational autoencoders: ELBO, beta-VAE, importance-weighted
observations.py    what a decoder's outputs mean: Bernoulli, normal, discretised logistic
latent_space.py    reconstructions, interpolations, traversals
autoregressive.py  exact likelihoods by the chain rule: one ordering or a mixture of several, labels, completions
conditionals.py    networks of the conditionals, and what their outputs mean: Bernoulli, categorical
raster.py          networks in raster order: PixelCNN, PixelRNN, WaveNet; mixtures of logistics as outputs
diffusion.py       denoising diffusion: noise, data or velocity prediction, the bound, guidance
diffusion_space.py     pixels or points, and the decoder at the end of a diffusion
latent_diffusion.py    a diffusion model of a VAE's latents
flow.py            normalizing flows: exact likelihoods by a change of variables, priors, dequantised data
gan.py             two players: generator and discriminator, feature matching, historical averaging
games.py           what they play for: non-saturating, hinge, least squares, Wasserstein; penalties
"""
