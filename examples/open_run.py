"""Opens a trained run in Python: samples, log-probabilities, latents.

python -m experiments.vae                  # trains runs/vae in a minute
python examples/open_run.py [FOLDER]       # by default runs/vae
"""

import sys

import jax
import numpy as np

import gm_jax

run = gm_jax.open_run(sys.argv[1] if len(sys.argv) > 1 else "runs/vae")  # needs neither the data nor the experiment
print(run, f"{sum(leaf.size for leaf in jax.tree.leaves(run.params)):,} parameters")
for record in run.results:
    print(f"  {record.name}: {record.value:.3f} {record.unit} ({record.kind}, {record.measure})")

x = run.sample(16, seed=0)
bound = run.log_prob(x, importance_samples=100)
print(f"log p of {len(x)} samples: {np.round(bound.log_prob, 1)} nats ({bound.kind}, {bound.measure})")

mean, log_var = run.encode(x)
line = run.interpolate(x[:4], x[4:8], num=10)
print(f"latents {mean.shape}, lines between images {line.shape}")
latest = run.at("latest", ema=False)  # another checkpoint, without the average of the parameters
print(f"the latest checkpoint is of step {latest.step}")
