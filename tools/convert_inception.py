"""Converts the public Inception v3 checkpoint to safetensors, which the FID needs.

    pip install -e '.[benchmarks]'                       # installs PyTorch, which reads the checkpoint
    python -m tools.convert_inception --checkpoint weights-inception-2015-12-05-6726825d.pth

torch-fidelity and pytorch-fid publish the checkpoint. It is read with `torch.load(weights_only=True)`, which runs no
code from the file, and only if its SHA-256 is the known one.
"""

import dataclasses
from pathlib import Path

import numpy as np

from gm_jax import hashing, runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """Converts the public Inception v3 checkpoint to safetensors, for `evaluate --features inception`."""

    checkpoint: Path
    """The .pth file to read."""
    output: Path = Path("inception.safetensors")
    """The .safetensors file to write."""
    any_checkpoint: bool = False
    """Accept another checkpoint of the same network; distances from it are not FIDs."""


def convert(config: Config) -> str:
    """Reads, checks and writes the weights; returns a summary.

    Raises:
        UserError: the checkpoint is missing, damaged, not the public one or not an Inception v3.
    """
    # Here, not above, so that --help need not import jax.
    from gm_jax.evaluation import features
    from gm_jax.networks import inception

    try:
        digest = hashing.file_digest(config.checkpoint)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {config.checkpoint}: check the path.") from None
    if digest != features.INCEPTION_CHECKPOINT and not config.any_checkpoint:
        raise UserError(
            f"{config.checkpoint} is damaged or not the public checkpoint: its SHA-256 is\n{digest}, need\n"
            f"{features.INCEPTION_CHECKPOINT}. To use it anyway, add --any-checkpoint."
        )
    tensors = read_checkpoint(config.checkpoint)
    try:
        inception.params_from_tensors(tensors)
    except (KeyError, ValueError) as error:
        raise UserError(f"{config.checkpoint} is not the Inception v3 of the FID: {error}") from None
    features.write_weights(config.output, tensors, {"checkpoint_sha256": digest})
    return f"{config.output}: {len(tensors)} tensors, {config.output.stat().st_size:,} bytes"


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Reads the floating-point tensors of a PyTorch checkpoint by name, without running code from the file.

    Raises:
        UserError: PyTorch is not installed, or the file holds more than tensors.
    """
    try:
        import torch
    except ImportError:
        raise UserError("a .pth file needs PyTorch: pip install torch, or install the extra `benchmarks`.") from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.numpy() for name, tensor in tensors.items() if tensor.is_floating_point()}
    except Exception as error:  # torch.load raises many types
        message = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is not a checkpoint that holds only tensors: {message}") from None


if __name__ == "__main__":
    runner.program(Config, convert)
