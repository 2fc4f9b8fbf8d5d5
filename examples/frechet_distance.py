"""Compares two arrays of images: Frechet distance, kernel distance, precision, recall, and more.

python examples/frechet_distance.py
"""

from gm_jax.data import sources
from gm_jax.evaluation import sample_metrics

digits = sources.load("digits")
real, other = digits.splits["train"]["x"][:600], digits.splits["train"]["x"][600:1200]  # uint8 [N, 8, 8, 1], 17 levels
mirrored = other[:, :, ::-1]

# The FID is extractor="inception" with weights=PATH: see docs/evaluation.md.
for name, generated in (("other digits", other), ("mirrored digits", mirrored)):
    print(name)
    for score in sample_metrics.compare("digits-cnn", real, generated, levels=17):
        print(f"  {score.name:16} {score.value:9.3f} {score.unit}")
