"""The autoregressive networks of torch_parity.py in eager PyTorch, as a user would write them by hand.

Each maps levels x [B, D] to outputs [B, D, P]: output i parametrises p(x_i | x_<i), in raster order. P is 1, the
log-odds of a 1, or the number of levels. `sample` is the usual loop, which runs the whole network for each position.
Only NADE samples by its recursion, which takes one cheap step per position.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import timing, torch_data

Arrays = Mapping[str, np.ndarray]  # name in the state_dict -> parameter or mask


class MaskedLinear(nn.Linear):
    """A linear layer with some weights fixed at zero."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes outputs [B, O] of x [B, I]."""
        return functional.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """One hidden layer, ReLU."""

    def __init__(self, num_dims: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(MaskedLinear(num_dims, hidden), nn.ReLU(), MaskedLinear(hidden, num_dims))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits [B, D, 1] of x [B, D]."""
        return self.layers(x.float())[..., None]


class NADE(nn.Module):
    """One hidden layer of sigmoid units, whose activation is updated from position to position.

    With plain indexing the backward pass computes a gradient of the whole matrix for each row, O(D^2 H). `unbound`
    splits the matrix into rows beforehand, which avoids that.
    """

    def __init__(self, num_dims: int, hidden: int, unbound: bool = False):
        super().__init__()
        self.unbound = unbound
        self.encoder = nn.Parameter(torch.zeros(num_dims, hidden))
        self.decoder = nn.Parameter(torch.zeros(num_dims, hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.bias = nn.Parameter(torch.zeros(num_dims))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits [B, D, 1] of x [B, D]."""
        x = x.float()
        encoder, decoder = self.encoder, self.decoder
        if self.unbound:
            encoder, decoder = encoder.unbind(), decoder.unbind()
        activation, logits = self.hidden_bias.expand(len(x), -1), []
        for i in range(x.shape[1]):
            logits.append(torch.sigmoid(activation) @ decoder[i])
            activation = activation + x[:, i, None] * encoder[i]
        return (torch.stack(logits, dim=1) + self.bias)[..., None]

    @torch.inference_mode()
    def sample(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """Draws positions first ... D-1 of x [B, D], in place."""
        activation = self.hidden_bias + x[:, :first].float() @ self.encoder[:first]
        for i in range(first, x.shape[1]):
            x[:, i] = draw((torch.sigmoid(activation) @ self.decoder[i] + self.bias[i])[:, None])
            activation = activation + x[:, i, None] * self.encoder[i]
        return x


class MaskedConv2d(nn.Conv2d):
    """A k x k convolution that sees the pixels before a pixel, and with mask B the pixel itself."""

    def __init__(self, inputs: int, outputs: int, size: int, mask_type: str):
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.ones(size, size)
        mask[size // 2, size // 2 + (mask_type == "B") :] = 0
        mask[size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes maps [B, O, H, W] of x [B, I, H, W]."""
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class ResidualBlock(nn.Module):
    """A mask-B convolution on half the features, with a residual connection."""

    def __init__(self, features: int, size: int):
        super().__init__()
        self.narrow = nn.Conv2d(features, features // 2, 1)
        self.conv = MaskedConv2d(features // 2, features // 2, size, "B")
        self.wide = nn.Conv2d(features // 2, features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes maps [B, F, H, W] of x [B, F, H, W]."""
        y = functional.relu(self.narrow(functional.relu(x)))
        return x + self.wide(functional.relu(self.conv(y)))


class PixelCNN(nn.Module):
    """A mask-A layer, residual blocks and two 1 x 1 convolutions, on binary images of one channel."""

    def __init__(self, side: int, features: int, layers: int, first_size: int, size: int):
        super().__init__()
        self.side = side
        self.first = MaskedConv2d(1, features, first_size, "A")
        self.blocks = nn.Sequential(*(ResidualBlock(features, size) for _ in range(layers)))
        self.readout = _readout(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits [B, D, 1] of x [B, D]."""
        outputs = self.readout(self.blocks(self.first(_image(x, self.side))))
        return outputs.reshape(*x.shape, 1)


class GatedLayer(nn.Module):
    """A layer of both stacks. In the first layer both stacks see the image, without the pixel itself."""

    def __init__(self, inputs: int, features: int, size: int, first: bool):
        super().__init__()
        self.reach, self.first = size // 2, first
        self.vertical = nn.Conv2d(inputs, 2 * features, (self.reach + 1, size))
        self.horizontal = nn.Conv2d(inputs, 2 * features, (1, self.reach + (not first)))
        self.link = nn.Conv2d(2 * features, 2 * features, 1, bias=False)
        self.residual = nn.Conv2d(features, features, 1)

    def forward(self, v: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the next v and h [B, F, H, W]."""
        a_v = self.vertical(functional.pad(v, (self.reach, self.reach, self.reach, 0)))
        down = functional.pad(a_v, (0, 0, 1, -1))
        # The first layer has no weight for the pixel itself, so the last column is cut off.
        a_h = self.horizontal(functional.pad(h, (self.reach, -1 if self.first else 0, 0, 0))) + self.link(down)
        update = self.residual(_gate(a_h))
        return _gate(a_v), update if self.first else h + update


class GatedPixelCNN(nn.Module):
    """The vertical and the horizontal stack, on binary images of one channel."""

    def __init__(self, side: int, features: int, layers: int, first_size: int, size: int):
        super().__init__()
        self.side = side
        rest = (GatedLayer(features, features, size, first=False) for _ in range(layers))
        self.stack = nn.ModuleList([GatedLayer(1, features, first_size, first=True), *rest])
        self.readout = _readout(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits [B, D, 1] of x [B, D]."""
        v = h = _image(x, self.side)
        for layer in self.stack:
            v, h = layer(v, h)
        return self.readout(h).reshape(*x.shape, 1)


class WaveNetLayer(nn.Module):
    """A dilated causal convolution with its gate, residual and skip connection; the last has no residual."""

    def __init__(self, features: int, skip: int, dilation: int, last: bool):
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv1d(features, 2 * features, 2, dilation=dilation)
        self.residual = None if last else nn.Conv1d(features, features, 1)
        self.skip = nn.Conv1d(features, skip, 1)

    def forward(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the next h [B, F, T], and the contribution to the outputs, [B, S, T]."""
        z = _gate(self.conv(functional.pad(h, (self.dilation, 0))))
        return h if self.residual is None else h + self.residual(z), self.skip(z)


class WaveNet(nn.Module):
    """Dilations 1, 2, 4 ..., on sequences of levels."""

    def __init__(self, length: int, levels: int, features: int, skip: int, layers: int):
        super().__init__()
        self.embedding = nn.Embedding(levels, features)
        self.layers = nn.ModuleList(
            WaveNetLayer(features, skip, 2**layer, last=layer == layers - 1) for layer in range(layers)
        )
        self.readout = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, levels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits [B, T, L] of x [B, T]."""
        h = functional.pad(self.embedding(x).mT, (1, -1))
        skips = 0
        for layer in self.layers:
            h, skip = layer(h)
            skips = skips + skip
        return self.readout(skips).mT


class TransformerBlock(nn.Module):
    """Causal self-attention and a perceptron, each after a normalisation."""

    def __init__(self, features: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.query, self.value, self.out = (nn.Linear(features, features) for _ in range(3))
        self.key = nn.Linear(features, features, bias=False)
        self.wide, self.narrow = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Computes the next h [B, D, F]."""
        normed = self.attention_norm(h)
        q, k, v = (
            part(normed).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(y.transpose(1, 2).flatten(2))
        return h + self.narrow(functional.gelu(self.wide(self.mlp_norm(h)), approximate="tanh"))


class Transformer(nn.Module):
    """A causal transformer of binary images of one channel; each position is given the pixel before it."""

    def __init__(self, side: int, features: int, heads: int, layers: int):
        super().__init__()
        self.embedding = nn.Embedding(3, features)
        self.rows, self.columns = nn.Embedding(side, features), nn.Embedding(side, features)
        self.blocks = nn.Sequential(*(TransformerBlock(features, heads) for _ in range(layers)))
        self.norm, self.readout = nn.LayerNorm(features), nn.Linear(features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes logits [B, D, 1] of x [B, D]."""
        positions = self.rows.weight[:, None] + self.columns.weight
        h = self.embedding(functional.pad(x.long(), (1, -1), value=2)) + positions.flatten(0, 1)
        return self.readout(self.norm(self.blocks(h)))


def draw(outputs: torch.Tensor) -> torch.Tensor:
    """Draws levels [B] from the parameters [B, P] of one position."""
    if outputs.shape[1] == 1:
        return torch.bernoulli(torch.sigmoid(outputs[:, 0])).long()
    return torch.multinomial(torch.softmax(outputs, dim=1), 1)[:, 0]


@torch.inference_mode()
def sample(network: nn.Module, x: torch.Tensor, first: int) -> torch.Tensor:
    """Draws positions first ... D-1 of x [B, D], in place: a full forward pass for each."""
    for i in range(first, x.shape[1]):
        x[:, i] = draw(network(x)[:, i])
    return x


def negative_log_likelihood(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Computes the loss of binary x [B, D] in nats, a mean over the batch."""
    return functional.binary_cross_entropy_with_logits(network(x)[..., 0], x.float(), reduction="sum") / len(x)


def load(name: str, sizes: Mapping[str, Any], arrays: Arrays) -> nn.Module:
    """Builds a network of this module with these parameters."""
    network = globals()[name](**sizes)
    network.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})
    return network


def outputs(name: str, sizes: Mapping[str, Any], arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """Computes the outputs [B, D, P] at x [B, D]."""
    with torch.inference_mode():
        return load(name, sizes, arrays)(torch.tensor(x, dtype=torch.long)).numpy()


def loss_and_grads(name: str, sizes: Mapping[str, Any], arrays: Arrays, x: np.ndarray) -> tuple[float, Arrays]:
    """Returns the loss at x [B, D] and its gradients."""
    network = load(name, sizes, arrays)
    loss = negative_log_likelihood(network, torch.tensor(x, dtype=torch.long))
    loss.backward()
    return loss.item(), {key: parameter.grad.numpy() for key, parameter in network.named_parameters()}


def make_sampler(name: str, sizes: Mapping[str, Any], arrays: Arrays, n: int, length: int, first: int) -> timing.Run:
    """Makes the sampling loop; a unit of work is positions first ... length-1 of n samples."""
    torch_data.use_all_cores()
    network = load(name, sizes, arrays).eval()
    loop: Callable = network.sample if isinstance(network, NADE) else lambda x, first: sample(network, x, first)

    def run(calls: int) -> None:
        for _ in range(calls):
            loop(torch.zeros(n, length, dtype=torch.long), first)

    return run


def make_steps(
    name: str,
    sizes: Mapping[str, Any],
    arrays: Arrays,
    images: np.ndarray,
    batch_size: int,
    count: int,
    learning_rate: float,
) -> timing.Run:
    """Makes the training loop; a unit of work is `count` steps, each on a new batch of binary images [N, D] uint8."""
    torch_data.use_all_cores()
    network = load(name, sizes, arrays)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    data = torch.from_numpy(images)

    batches = torch_data.batches(data, batch_size)

    def run(calls: int) -> None:
        for x in itertools.islice(batches, calls * count):
            optimizer.zero_grad()
            negative_log_likelihood(network, x.float()).backward()
            optimizer.step()

    return run


def _image(x: torch.Tensor, side: int) -> torch.Tensor:
    """Turns binary x [B, D] into images [B, 1, H, W] in [-1, 1]."""
    return 2 * x.reshape(-1, 1, side, side).float() - 1


def _readout(features: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(features, features, 1), nn.ReLU(), nn.Conv2d(features, 1, 1))


def _gate(a: torch.Tensor) -> torch.Tensor:
    value, gate = a.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(gate)
