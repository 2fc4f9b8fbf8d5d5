"""The FID (Frechet Inception Distance): the Frechet distance between Inception features of two sets of images.

    extractor = features.inception(Path("inception.safetensors"))
    fid.frechet_inception_distance(extractor, real_images, generated_images)

`evaluation.frechet` has the formula and the moments, `evaluation.features` the extractor. `sample_metrics.measure`
computes the FID together with the other distances and scores.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
    2017, arXiv:1706.08500.
"""

import numpy as np

from gm_jax.errors import UserError
from gm_jax.evaluation import frechet, sample_metrics
from gm_jax.evaluation.features import Extractor


def frechet_inception_distance(
    extractor: Extractor, real: np.ndarray, generated: np.ndarray, *, batch_size: int = 100
) -> float:
    """Computes the FID of generated images; the literature uses 50,000 of them.

    Args:
        extractor: Inception v3 with the public weights, `features.inception`.
        real: [N, H, W, C] uint8, 0..255.
        generated: [M, H, W, C] uint8, 0..255.
        batch_size: images at a time.
    Returns:
        The squared distance, at least 0; smaller is better. It depends on N and M.
    Raises:
        UserError: the extractor is not Inception, or a set has fewer than two images.
    Warns:
        UserWarning: a set has no more images than there are features.
    """
    if extractor.name != "inception":
        raise UserError(f"the FID needs the extractor inception, got {extractor.name}: use frechet_distance instead.")
    moments = [
        sample_metrics.gather(extractor, x, measure="256 levels", batch_size=batch_size).moments
        for x in (real, generated)
    ]
    return frechet.frechet_distance(*moments)
