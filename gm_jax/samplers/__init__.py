"""Sampling loops over array -> array callables.

autoregressive.py    one position after the other; a cached loop, and the naive loop that it equals bit for bit
diffusion.py         decreasing times, one prediction each: ancestral (DDPM) and DDIM steps; guidance
langevin.py          chains on continuous x: Langevin, MALA, Hamiltonian Monte Carlo
gibbs.py             block Gibbs sampling of two sets of binary units
annealing.py         annealed importance sampling in both directions; lower bounds for single examples (RAISE)

Wrong shapes and dtypes raise AssertionError, under `jit` while it traces; no docstring repeats this.
"""
