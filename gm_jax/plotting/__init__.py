"""Arrays to pictures.

images.py     grids of images, points, curves and sequences as PNG
densities.py  densities in the plane as PNG
vae.py        reconstructions, interpolations and traversals of a latent space
diffusion.py  chains of a diffusion model: data into noise and noise into data
"""
