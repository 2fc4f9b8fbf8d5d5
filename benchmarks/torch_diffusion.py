"""The U-Net of diffusion_training.py in Hugging Face diffusers (PyTorch), with our parameters.

Their keys have a bias, which the softmax cancels: it is 0 here and has no gradient. Their time embedding starts with
the cosines and ours with the sines, so the rows of the next layer are reordered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import diffusers
import numpy as np
import torch

from benchmarks import timing, torch_data


def make_steps(
    params: Mapping, images: np.ndarray, num_steps: int, batch_size: int, learning_rate: float
) -> timing.Run:
    """Makes the training loop on uint8 images [N, H, W, C]; a unit of work is one step."""
    torch_data.use_all_cores()
    model, scheduler = unet(params, images.shape[1], images.shape[3]), diffusers.DDPMScheduler(num_steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def run(calls: int) -> None:
        for _ in range(calls):
            x_0 = data[torch.randint(len(data), (batch_size,))].float() / 127.5 - 1.0
            noise, t = torch.randn(x_0.shape), torch.randint(num_steps, (batch_size,))
            predicted = model(scheduler.add_noise(x_0, noise, t), t).sample
            loss = torch.nn.functional.mse_loss(predicted, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def make_samples(params: Mapping, side: int, channels: int, num_steps: int, visited: int, num: int) -> timing.Run:
    """Makes the sampler; a unit of work is `num` images by DDIM, clipped to [-1, 1] at each of the visited times."""
    torch_data.use_all_cores()
    model = unet(params, side, channels).eval()
    scheduler = diffusers.DDIMScheduler(num_steps, timestep_spacing="trailing")
    scheduler.set_timesteps(visited)

    def run(calls: int) -> None:
        with torch.no_grad():
            for _ in range(calls):
                x = torch.randn(num, channels, side, side)
                for t in scheduler.timesteps:
                    x = scheduler.step(model(x, t).sample, t, x).prev_sample

    return run


def outputs_and_grads(params: Mapping, x_t: np.ndarray, t: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, dict]:
    """Returns the outputs for x_t [B, H, W, C] at times t [B], and the gradients of their mean squared error to eps."""
    model = unet(params, x_t.shape[1], x_t.shape[3])
    predicted = model(_nchw(x_t), torch.from_numpy(t)).sample
    torch.nn.functional.mse_loss(predicted, _nchw(eps)).backward()
    grads = {path: _ours(tensor.grad, path) for path, tensor in _tensors(model, params)}
    return predicted.detach().permute(0, 2, 3, 1).numpy(), grads


def unet(params: Mapping, side: int, channels: int) -> diffusers.UNet2DModel:
    """Builds the U-Net (32, 64, 64): one block per level, self-attention on the second level and in the middle."""
    model = diffusers.UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("to_k.bias"):
                parameter.zero_()
        for path, tensor in _tensors(model, params):
            tensor.copy_(_theirs(_leaf(params, path), path))
    return model


def _tensors(model: torch.nn.Module, params: Mapping) -> Iterator[tuple[tuple[str, ...], torch.nn.Parameter]]:
    """Yields (our path, their tensor) for each of our arrays."""
    last = sum(name.startswith("down_") and "attention" not in name for name in params) - 1
    for name, module in params.items():
        theirs = model.get_submodule(_module(name, last))
        for path in _paths(module, (name,)):
            *inner, kind = path[1:]
            owner = theirs.get_submodule(_INNER.get(inner[0], inner[0])) if inner else theirs
            yield path, owner.bias if kind == "bias" else owner.weight


# Layers of our blocks, attentions and time embedding -> their names in diffusers.
_INNER = {
    "norm_0": "norm1",
    "conv_0": "conv1",
    "time": "time_emb_proj",
    "norm_1": "norm2",
    "conv_1": "conv2",
    "shortcut": "conv_shortcut",
    "GroupNorm_0": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "out": "to_out.0",
    "Dense_0": "linear_1",
    "Dense_1": "linear_2",
}


def _module(name: str, last: int) -> str:
    """Translates the name of one of our modules; diffusers counts the levels on the way up from the innermost."""
    kind, *parts = name.split("_")
    *words, index = parts or ["", ""]
    match kind, *words:
        case (("down" | "up"), *_):
            level = int(words[-1]) if kind == "down" else last - int(words[-1])
            return f"{kind}_blocks.{level}.{'attentions' if 'attention' in words else 'resnets'}.{index}"
        case "middle", *_:
            return "mid_block.attentions.0" if index == "attention" else f"mid_block.resnets.{index}"
        case "halve", *_:
            return f"down_blocks.{index}.downsamplers.0.conv"
        case "double", *_:
            return f"up_blocks.{last - int(index)}.upsamplers.0.conv"
    return {"first": "conv_in", "time": "time_embedding", "norm": "conv_norm_out", "last": "conv_out"}[name]


def _paths(tree: Mapping, prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from _paths(node, (*prefix, name))
        else:
            yield *prefix, name


def _leaf(tree: Any, path: tuple[str, ...]) -> np.ndarray:
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def _theirs(array: np.ndarray, path: tuple[str, ...]) -> torch.Tensor:
    if path[:2] == ("time", "Dense_0") and array.ndim == 2:
        array = _halves_swapped(array)
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return torch.from_numpy(np.ascontiguousarray(array))


def _ours(tensor: torch.Tensor, path: tuple[str, ...]) -> np.ndarray:
    array = tensor.numpy()
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return _halves_swapped(array) if path[:2] == ("time", "Dense_0") and array.ndim == 2 else array


def _halves_swapped(array: np.ndarray) -> np.ndarray:
    return np.concatenate(np.split(array, 2)[::-1])


def _nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)
