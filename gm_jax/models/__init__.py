"""One family per file: networks, losses and samplers combined into a `Model`, the whole algorithm top to bottom.

vae.py             variational autoencoders: ELBO, beta-VAE, importance-weighted
conditional_vae.py     a VAE of p(x|y), and the bound of p(x) by summing over the classes
given_label.py         a network with its labels filled in, which a family of unlabelled data uses
decoder_likelihoods.py  p(x|z) of a decoder: Bernoulli, normal, discretised logistic
autoregressive.py  exact likelihoods by the chain rule: one ordering or a mixture of several, labels, completions
autoregressive_networks.py  networks of the conditionals, and the likelihoods of one pixel that their outputs define
pixel_conditionals.py  networks whose outputs define all colours of a pixel at once: PixelCNN++
masked_diffusion.py    masked dimensions from visible ones: a bound, and exact likelihoods in any order
d3pm.py            discrete diffusion of levels by transition matrices
flow.py            normalizing flows: exact likelihoods by a change of variables, priors, dequantisation
diffusion.py       denoising diffusion: noise, data or v prediction, the bound, guidance
diffusion_space.py     pixels or points, and the decoder at the end of a diffusion
learned_variance.py    the variance of a diffusion model as a second output of its network
learned_weight.py      a diffusion model whose errors are divided by their expected size, which is learned
score.py           score-based models in continuous time: score SDEs, EDM, flow matching; ODE likelihood, bound
path_objectives.py     what the networks of score.py predict, and at which times they are trained
augmentation.py        geometric augmentation of training images, described to the network
path_likelihoods.py    densities by the probability-flow ODE, by each of several probes
path_sampling.py       clipped predictions and examples one by one, for samplers of continuous paths
meanflow.py        mean velocities for samples in one step: MeanFlow
consistency.py     a student that ends where its teacher's flow ends, in one step
optimal_transport.py   flow matching on pairs of data and noise of least cost
reflow.py          a second, straighter flow that learns from the first one
second_stage.py        a second network that starts as a copy of the first one
label_dropout.py       labels and captions that are withheld in training and guide samples
image_editing.py       samples that start from an image, or keep a part of it
latent_diffusion.py    a diffusion model of a VAE's latents
vq_vae.py          an autoencoder of discrete codes, and an autoregressive model of them
quantizers.py          codes as moving averages with restarts, and finite scalar quantisation
gan.py             generator and discriminator, feature matching, historical averaging, density by kernels
conditional_gan.py     generator and discriminator that see the label
adversarial_objectives.py  the losses of GANs: non-saturating, hinge, least squares, Wasserstein; penalties
rbm.py             restricted Boltzmann machines: contrastive divergence, persistent chains, likelihoods
rbm_partition.py       log Z of a restricted Boltzmann machine: exact, or by annealed importance sampling
energy.py          deep energy-based models: Langevin chains that persist, likelihoods
jem.py             a classifier that is an energy-based model: JEM
minimax_energy.py  an energy and a flow as two players: no chains, a bound of log p from above
noise_contrastive.py   an energy and its log Z, from a classifier of data and noise
energy_chains.py       the Langevin chains of an energy
energy_partition.py    log Z of a deep energy-based model: quadrature, or annealed Hamiltonian Monte Carlo
energy_space.py        points, or images with noise that makes them a density
bidirectional.py   both bounds of log p(x) for samples of a VAE or of a flow of levels, whose latent is known
"""
