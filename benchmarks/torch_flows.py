"""The flows of flow_training.py in `normflows` (PyTorch), with our parameters.

In normflows `forward` maps latents to data and `inverse` is trained: its coupling maps x to (x - shift) exp(-scale),
and ours to x exp(scale) + shift. The two are equal if the scales are 0 and the shifts have opposite signs. Both start
there, and the cost of a step does not depend on the parameters. The log-determinants of the actnorms and the 1x1
convolutions, on which both sides must agree, are nonzero everywhere.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import normflows as nf
import numpy as np
import torch

from benchmarks import timing, torch_data

LEVELS = 256


def make_glow_steps(variables: Mapping, images: np.ndarray, batch_size: int, learning_rate: float) -> timing.Run:
    """Makes the training loop on uint8 images [N, H, W, C], dequantised; a unit of work is one step."""
    side = images.shape[1]
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def prepare(x: torch.Tensor) -> torch.Tensor:
        return (x + torch.rand(x.shape)) / LEVELS - 0.5

    return _make_steps(glow(variables, side, images.shape[3]), data, prepare, batch_size, 1, learning_rate)


def make_realnvp_steps(
    variables: Mapping, points: np.ndarray, batch_size: int, count: int, learning_rate: float
) -> timing.Run:
    """Makes the training loop on points [N, 2]; a unit of work is `count` steps."""
    return _make_steps(realnvp(variables), torch.from_numpy(points), lambda x: x, batch_size, count, learning_rate)


def make_glow_samples(variables: Mapping, side: int, channels: int, num: int) -> timing.Run:
    """Makes the sampler; a unit of work is `num` images."""
    torch_data.use_all_cores()
    model = glow(variables, side, channels)

    def run(calls: int) -> None:
        with torch.no_grad():
            for _ in range(calls):
                model.sample(num)

    return run


def glow_loss_and_grads(variables: Mapping, h: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Returns -mean log p of h [B, H, W, C] and its gradients, in the order of `coupling_grads`."""
    model = glow(variables, h.shape[1], h.shape[3])
    loss = -model.log_prob(torch.from_numpy(h).permute(0, 3, 1, 2), None).mean()
    loss.backward()
    grads = []
    for blocks in reversed(model.flows):
        for block in reversed(blocks[:-1]):
            *hidden, last = (module for module in block.flows[0].flows[1].param_map.net if hasattr(module, "weight"))
            grads += [array for conv in hidden for array in (_hwio(conv.weight.grad), conv.bias.grad.numpy())]
            grads += [-_hwio(last.weight.grad)[..., ::2], -last.bias.grad.numpy()[::2]]
    return loss.item(), grads


def realnvp_loss_and_grads(variables: Mapping, x: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Returns -mean log p of x [B, 2] and its gradients, in the order of `coupling_grads`."""
    model = realnvp(variables)
    loss = -model.log_prob(torch.from_numpy(x)).mean()
    loss.backward()
    grads = []
    for block in reversed([flow for flow in model.flows if isinstance(flow, nf.flows.AffineCouplingBlock)]):
        *hidden, last = (module for module in block.flows[1].param_map.net if hasattr(module, "weight"))
        grads += [array for layer in hidden for array in (layer.weight.grad.numpy().T, layer.bias.grad.numpy())]
        grads += [-last.weight.grad.numpy().T[:, ::2], -last.bias.grad.numpy()[::2]]
    return loss.item(), grads


def glow(variables: Mapping, side: int, channels: int) -> nf.MultiscaleFlow:
    """Builds the Glow of normflows with our parameters and trainable priors."""
    params, fixed = (variables[name]["multi_scale"] for name in ("params", "fixed"))
    levels, bases = [], []
    for level in range(len(fixed)):
        side, channels = side // 2, channels * 4
        step = params[f"stages_{level}"]["layers_1"]["layer"]
        convolution = {**step["layers_1"], **fixed[f"stages_{level}"]["layers_1"]["layer"]["layers_1"]}
        count, features = convolution["sign"].shape[0], step["layers_2"]["network"]["Dense_0"]["bias"].shape[-1]
        blocks = []
        for k in range(count):
            block = nf.flows.GlowBlock(channels, features, scale_map="exp")
            matrix = _matrix({name: leaf[k] for name, leaf in convolution.items()})
            # The two squeezes order channels differently; the first matrix after a squeeze absorbs the permutation.
            order = _squeezed_order(channels) if k == 0 else np.eye(channels)
            _set_convolution(block.flows[1], matrix @ order.T)
            _set_network(block.flows[0].flows[1].param_map, step["layers_2"]["network"], k)
            _set_actnorm(block.flows[2], *(order @ step["layers_0"][name][k] for name in ("shift", "log_scale")))
            blocks.append(block)
        levels.append([*reversed(blocks), nf.flows.Squeeze()])
        last = level + 1 == len(fixed)
        bases.append(nf.distributions.DiagGaussian((channels if last else channels // 2, side, side)))
        channels //= 2
    merges = [nf.flows.Merge() for _ in levels[1:]]
    return nf.MultiscaleFlow(bases[::-1], levels[::-1], merges, class_cond=False)


def realnvp(variables: Mapping) -> nf.NormalizingFlow:
    """Builds the RealNVP of normflows in the plane with our parameters: pairs of couplings, swaps and actnorms."""
    layer = variables["params"]["layers"]["layer"]
    networks = [layer[name]["network"] for name in ("layers_0", "layers_1")]
    from_data = []
    ours = layer["layers_2"]
    for k in range(ours["shift"].shape[0]):
        for network in networks:
            widths = [1, *(network[f"Dense_{i}"]["bias"].shape[-1] for i in range(len(network)))]
            mlp = nf.nets.MLP(widths)
            _set_network(mlp, network, k)
            from_data += [nf.flows.AffineCouplingBlock(mlp), nf.flows.Permute(2, mode="swap")]
        actnorm = nf.flows.ActNorm(2)
        _set_actnorm(actnorm, ours["shift"][k], ours["log_scale"][k])
        from_data.append(actnorm)
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), from_data[::-1])


def _make_steps(
    model: torch.nn.Module,
    data: torch.Tensor,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
    count: int,
    learning_rate: float,
) -> timing.Run:
    torch_data.use_all_cores()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

    batches = torch_data.batches(data, batch_size)

    def run(calls: int) -> None:
        for x in itertools.islice(batches, calls * count):
            optimizer.zero_grad()
            loss = model.forward_kld(prepare(x))
            loss.backward()
            optimizer.step()

    return run


def _set_network(network: torch.nn.Module, ours: Mapping[str, Any], k: int) -> None:
    """Copies the k-th of our stacked networks; its layers are in the order Conv_0, Dense_0, Conv_1."""
    layers = [module for module in network.net if hasattr(module, "weight")]
    names = sorted(ours, key=lambda name: (name.split("_")[1], name))
    for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
        kernel, bias = ours[name]["kernel"][k], ours[name]["bias"][k]
        if layer.weight.ndim == 4:
            kernel = (kernel if kernel.ndim == 4 else kernel[None, None]).transpose(3, 2, 0, 1)
        else:
            kernel = kernel.T
        if i + 1 == len(layers):  # ours: shifts, then log-scales, which are 0; theirs alternate
            kernel, bias = (_alternating(-array) for array in (kernel, bias))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))


def _set_actnorm(layer: nf.flows.ActNorm, shift: np.ndarray, log_scale: np.ndarray) -> None:
    """Converts our x exp(log_scale) + shift to (x - t) exp(-s)."""
    with torch.no_grad():
        layer.s.copy_(torch.from_numpy(-log_scale).reshape(layer.s.shape))
        layer.t.copy_(torch.from_numpy(-shift * np.exp(-log_scale)).reshape(layer.t.shape))
        layer.data_dep_init_done.fill_(1.0)


def _set_convolution(layer: nf.flows.Invertible1x1Conv, matrix: np.ndarray) -> None:
    permutation, lower, upper = torch.linalg.lu(torch.from_numpy(matrix).double())
    diagonal = upper.diagonal()
    with torch.no_grad():
        layer.P.copy_(permutation)
        layer.L.copy_(lower)
        layer.U.copy_(upper.triu(1))
        layer.sign_S.copy_(diagonal.sign())
        layer.log_S.copy_(diagonal.abs().log())


def _matrix(factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Computes our W = P L (U + diag(s))."""
    lower = np.tril(factors["lower"], -1) + np.eye(len(factors["sign"]))
    upper = np.triu(factors["upper"], 1) + np.diag(factors["sign"] * np.exp(factors["log_abs_diagonal"]))
    return (lower @ upper)[factors["permutation"]]


def _squeezed_order(channels: int) -> np.ndarray:
    """Computes the permutation [C, C] of channels after a squeeze, from ours (pixel first) to theirs (colour first)."""
    ours = np.arange(channels).reshape(4, channels // 4)
    return np.eye(channels)[ours.T.reshape(-1)]


def _alternating(array: np.ndarray) -> np.ndarray:
    """Interleaves the two halves of the first axis."""
    return np.stack(np.split(array, 2), axis=1).reshape(array.shape)


def _hwio(weight: torch.Tensor) -> np.ndarray:
    return weight.permute(2, 3, 1, 0).numpy()
