"""Draws arrays as pictures.

images.py     grids of images with their labels, points and waveforms, as PNG
curves.py     training and validation over steps, as PNG
animation.py  chains and pictures over time as GIF
layout.py     grids that fit any number of examples, and their labels
densities.py  densities of points in the plane as PNG
vector_fields.py  lines of a flow and fields of arrows in the plane as PNG
text_to_image.py   prompts, words, guidance, and where words are read
vae.py        reconstructions, interpolations and traversals of a latent space
vq_vae.py     reconstructions from discrete codes
gan.py        arcs between latents of a GAN
class_conditional.py  the same latents in every class
flow.py       samples of a flow at several temperatures, interpolations of its latents
autoregressive.py  completions of the first half of an image
masked.py          completions of holes of several shapes
diffusion.py  chains of a diffusion model: data into noise and noise into data
energy.py     chains of a deep energy-based model, samples of each class of a JEM
score.py      data into noise, and samples of a score-based model by the number of steps
one_step.py   samples of a model of one step, next to its flow
rbm.py        filters and chains of a restricted Boltzmann machine
"""
