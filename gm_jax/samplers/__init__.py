"""Generation loops over array -> array callables.

autoregressive.py    one position after the other: cached, and the naive loop that it must equal bit for bit
diffusion.py         ancestral (DDPM) and DDIM steps, the loop over times, and guidance
"""
