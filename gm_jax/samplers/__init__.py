"""Sampling loops over array -> array callables.

autoregressive.py    one position after the other; a cached loop, and the naive loop that it equals bit for bit
discrete.py          discrete diffusion: states are drawn step by step
masked.py            masked dimensions become visible, one or several at each step
diffusion.py         the loop of diffusion: falling times, one prediction and one step each
ddpm.py              the step of DDPM: ancestral sampling
ddim.py              the step of DDIM
guidance.py          classifier-free guidance
time_grids.py        falling times on a Gaussian path: uniform, trailing, uniform in log snr, Karras
ode.py               probability-flow ODE: Euler, Heun with churn, adaptive steps
dpm_solver.py        the same in few steps: DPM-Solver++(2M)
sde.py               new noise: Euler-Maruyama, ancestral, predictor-corrector, annealed Langevin
langevin.py          chains on continuous x: Langevin, MALA, Hamiltonian Monte Carlo
gibbs.py             block Gibbs sampling of two sets of binary units
annealing.py         annealed importance sampling in both directions; lower bounds for single examples (RAISE)

Wrong shapes and dtypes raise AssertionError, under `jit` while it traces; no docstring repeats this.
"""
