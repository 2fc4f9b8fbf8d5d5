"""The public Inception v3 checkpoint as a safetensors file, for Frechet distances that are FIDs.

    pip install -e '.[benchmarks]'                       # torch, to read it
    python -m tools.convert_inception --checkpoint weights-inception-2015-12-05-6726825d.pth

The checkpoint is that of torch-fidelity and pytorch-fid. It is read by `torch.load(weights_only=True)`, which runs no
code that is in it, and only if its SHA-256 is the known one.
"""

import dataclasses
from pathlib import Path

from gm_jax import hashing, runner
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """From which file to which."""

    checkpoint: Path
    """The .pth file."""
    output: Path = Path("inception.safetensors")
    """The .safetensors file to write."""
    any_checkpoint: bool = False
    """Take another checkpoint of the same network, too."""


def convert(config: Config) -> str:
    """Read, check and write."""
    from gm_jax.evaluation import features
    from gm_jax.networks import inception

    try:
        digest = hashing.file_digest(config.checkpoint)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {config.checkpoint}.") from None
    if digest != features.INCEPTION_CHECKPOINT and not config.any_checkpoint:
        raise UserError(
            f"{config.checkpoint} is damaged, or not the public checkpoint: its SHA-256 is\n{digest}, need\n"
            f"{features.INCEPTION_CHECKPOINT}. Another is taken with --any-checkpoint."
        )
    tensors = read_checkpoint(config.checkpoint)
    try:
        inception.params_from_tensors(tensors)
    except (KeyError, ValueError) as error:
        raise UserError(f"{config.checkpoint} is no Inception v3 of the FID: {error}") from None
    features.write_weights(config.output, tensors, {"checkpoint_sha256": digest})
    return f"{config.output}: {len(tensors)} tensors, {config.output.stat().st_size:,} bytes"


def read_checkpoint(path: Path) -> dict:
    """The floating tensors of a PyTorch checkpoint, by name, as numpy arrays; code in it is not run."""
    try:
        import torch
    except ImportError:
        raise UserError("a .pth file is read by PyTorch: pip install torch, or the extra `benchmarks`.") from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.numpy() for name, tensor in tensors.items() if tensor.is_floating_point()}
    except Exception as error:  # it raises many kinds
        said = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is no checkpoint of tensors alone: {said}") from None


if __name__ == "__main__":
    runner.program(Config, convert)
