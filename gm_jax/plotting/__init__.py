"""Draws arrays as pictures.

images.py     grids of images, points and waveforms, and training curves, as PNG
densities.py  densities of points in the plane as PNG
vae.py        reconstructions, interpolations and traversals of a latent space
diffusion.py  chains of a diffusion model: data into noise and noise into data
"""
