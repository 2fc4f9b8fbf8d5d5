"""The flows of flow_training.py in `normflows` (PyTorch), from our parameters.

normflows calls the way from the latent to the data `forward`, and trains `inverse`: its coupling takes x to
(x - shift) exp(-scale) where ours is x exp(scale) + shift. The two are the same where the scales are 0 and the shifts
have the other sign, which is how both start here, and all that a step does has the same cost at any parameters. The
log-determinants that both must agree on are those of the actnorms and the 1x1 convolutions, which are nowhere 0.
"""

import itertools
import os
from collections.abc import Mapping
from typing import Any

import normflows as nf
import numpy as np
import torch

from benchmarks import timing

LEVELS = 256


def make_glow_steps(variables: Mapping, images: np.ndarray, batch_size: int, learning_rate: float) -> timing.Run:
    """The training loop on uint8 images [N, H, W, C], dequantised; a unit of work is one step."""
    side = images.shape[1]
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def prepare(x: torch.Tensor) -> torch.Tensor:
        return (x + torch.rand(x.shape)) / LEVELS - 0.5

    return _make_steps(glow(variables, side, images.shape[3]), data, prepare, batch_size, 1, learning_rate)


def make_realnvp_steps(
    variables: Mapping, points: np.ndarray, batch_size: int, count: int, learning_rate: float
) -> timing.Run:
    """The training loop on points [N, 2]; a unit of work is `count` steps."""
    return _make_steps(realnvp(variables), torch.from_numpy(points), lambda x: x, batch_size, count, learning_rate)


def make_glow_samples(variables: Mapping, side: int, channels: int, num: int) -> timing.Run:
    """A unit of work is `num` images."""
    _use_all_cores()
    model = glow(variables, side, channels)

    def run(calls: int) -> None:
        with torch.no_grad():
            for _ in range(calls):
                model.sample(num)

    return run


def glow_loss_and_grads(variables: Mapping, h: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """-mean log p of h [B, H, W, C] and its gradients of all couplings, in the order of `coupling_grads`."""
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
    """-mean log p of x [B, 2] and its gradients of all couplings, in the order of `coupling_grads`."""
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
    """Normflows' Glow with our parameters, the priors of its parts trainable."""
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
            # Our squeeze and theirs put the channels in another order, which the first matrix after it takes up.
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
    """Normflows' RealNVP of the plane with our parameters: pairs of couplings, swaps between them, and actnorms."""
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


def _make_steps(model, data: torch.Tensor, prepare, batch_size: int, count: int, learning_rate: float) -> timing.Run:
    _use_all_cores()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

    def epochs():
        while True:
            for indices in torch.randperm(len(data)).split(batch_size):
                if len(indices) == batch_size:
                    yield data[indices]

    batches = epochs()

    def run(calls: int) -> None:
        for x in itertools.islice(batches, calls * count):
            optimizer.zero_grad()
            loss = model.forward_kld(prepare(x))
            loss.backward()
            optimizer.step()

    return run


def _set_network(network: torch.nn.Module, ours: Mapping[str, Any], k: int) -> None:
    """The k-th of our stacked networks; the order of layers is that of their kind: Conv_0, Dense_0, Conv_1."""
    layers = [module for module in network.net if hasattr(module, "weight")]
    names = sorted(ours, key=lambda name: (name.split("_")[1], name))
    for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
        kernel, bias = ours[name]["kernel"][k], ours[name]["bias"][k]
        if layer.weight.ndim == 4:
            kernel = (kernel if kernel.ndim == 4 else kernel[None, None]).transpose(3, 2, 0, 1)
        else:
            kernel = kernel.T
        if i + 1 == len(layers):  # shifts, then log-scales, which are 0; theirs alternate
            kernel, bias = (_alternating(-array) for array in (kernel, bias))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))


def _set_actnorm(layer: nf.flows.ActNorm, shift: np.ndarray, log_scale: np.ndarray) -> None:
    """Ours is x exp(log_scale) + shift, theirs (x - t) exp(-s)."""
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
    """Our W = P L (U + diag(s))."""
    lower = np.tril(factors["lower"], -1) + np.eye(len(factors["sign"]))
    upper = np.triu(factors["upper"], 1) + np.diag(factors["sign"] * np.exp(factors["log_abs_diagonal"]))
    return (lower @ upper)[factors["permutation"]]


def _squeezed_order(channels: int) -> np.ndarray:
    """[C, C] the permutation from our channels after a squeeze, place of the pixel first, to theirs, colour first."""
    ours = np.arange(channels).reshape(4, channels // 4)
    return np.eye(channels)[ours.T.reshape(-1)]


def _alternating(array: np.ndarray) -> np.ndarray:
    """Two halves of the first axis, one entry of each in turn."""
    return np.stack(np.split(array, 2), axis=1).reshape(array.shape)


def _hwio(weight: torch.Tensor) -> np.ndarray:
    return weight.permute(2, 3, 1, 0).numpy()


def _use_all_cores() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
