"""The building blocks of RA V-Net (Lee et al. 2021), each named as in the paper, and what its rivals share with it.

Shapes are written `(B, C, H, W)`. The readings that the text leaves open are arguments; the defaults are the paper's.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import Convolution, UnetResBlock


def check_size(x: torch.Tensor, name: str) -> None:
    """Raises a ValueError if the height or width of a network's input is not divisible by 16."""
    if x.shape[2] % 16 or x.shape[3] % 16:
        raise ValueError(
            f"{name} needs a height and a width divisible by 16, got {x.shape[2]} x {x.shape[3]}: "
            "pad the image, for example with DivisiblePadd(k=16)."
        )


def he_normal(module: nn.Module) -> None:
    """He normal convolutions without bias at the start, for `nn.Module.apply`; `ConvLSTM` sees to its own."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ConvBNReLU(Convolution):
    """Convolution (no bias, same padding), batch normalisation, ReLU: `(B, in, H, W) -> (B, out, H, W)`.

    In evaluation mode without gradients the normalisation is folded into the convolution, which is faster.
    `torch.nn.utils.fusion` is not used, because a fused network cannot be trained again.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dropout: float = 0.0):
        super().__init__(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            adn_ordering="NDA",
            act=("relu", {"inplace": True}),
            norm="batch",
            dropout=dropout or None,
            bias=False,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.adn.N
        plain = hasattr(norm, "running_var")  # MONAI wraps it for TensorRT
        if self.training or norm.training or torch.is_grad_enabled() or not plain:
            return self.adn(self.conv(x))
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight, bias = self.conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        return F.conv2d(x, weight, bias, padding=self.conv.padding).relu_()


class DoubleConv(nn.Sequential):
    """U-Net's block, with batch normalisation: two 3 x 3 convolutions, `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0):
        super().__init__(
            ConvBNReLU(in_channels, out_channels, 3, dropout), ConvBNReLU(out_channels, out_channels, 3, dropout)
        )


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sum, in x's own memory if no gradient needs x."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def _multiply(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Product, in x's own memory if no gradient needs x."""
    return x * y if torch.is_grad_enabled() else x.mul_(y)


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Sigmoid, in x's own memory if no gradient needs x."""
    return torch.sigmoid(x) if torch.is_grad_enabled() else x.sigmoid_()


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Keras 2's hard sigmoid, clip(0.2 x + 0.5, 0, 1); PyTorch's `hardsigmoid` has a slope of 1/6."""
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


def _tanh(x: torch.Tensor) -> torch.Tensor:
    """Hyperbolic tangent, in x's own memory if no gradient needs x."""
    return torch.tanh(x) if torch.is_grad_enabled() else x.tanh_()


class CofRes(nn.Module):
    """Composite original feature residual module (section 2.3, Figure 3): `(B, C_in, H, W) -> (B, C, H, W)`.

    Four 3 x 3 convolutions of C/4 filters in a row; the original features are summed after each (`jumps="all"`) or
    after the second and the fourth (`jumps="pairs"`); a 1 x 1 convolution fuses the results. If C_in is not C/4,
    the original is projected by a 1 x 1 convolution with batch normalisation. The sum follows the activation.

    Args:
        in_channels: C_in.
        out_channels: C, divisible by 4.
        jumps: "all" (the paper's "denser intra-block connections") or "pairs" (its "double-jump connection").
        dropout: probability of dropping an element after each normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, jumps: str = "all", dropout: float = 0.0):
        super().__init__()
        if out_channels % 4:
            raise ValueError(f"CofRes needs out_channels divisible by 4, got {out_channels}.")
        if jumps not in ("all", "pairs"):
            raise ValueError(f'jumps must be "all" or "pairs", got {jumps!r}.')
        quarter = out_channels // 4
        self.project: nn.Module = nn.Identity()
        if in_channels != quarter:
            self.project = nn.Sequential(nn.Conv2d(in_channels, quarter, 1, bias=False), nn.BatchNorm2d(quarter))
        inputs = (in_channels, quarter, quarter, quarter)
        self.convs = nn.ModuleList(ConvBNReLU(channels, quarter, 3, dropout) for channels in inputs)
        self.jumps = (True, True, True, True) if jumps == "all" else (False, True, False, True)
        self.fuse = ConvBNReLU(out_channels, out_channels, 1, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        original = self.project(x)  # (B, C/4, H, W)
        results = []
        for k, conv in enumerate(self.convs):
            x = conv(x)
            if self.jumps[k]:
                x = _add(x, original)
            results.append(x)
        return self.fuse(torch.cat(results, dim=1))  # (B, C, H, W)


class ChannelAttention(nn.Module):
    """Channel attention module (section 2.4, equations 1 and 2): `(B, C, H, W) -> (B, C, H, W)`.

    With `a` the features as a C x N matrix, `G = softmax(a a^T)` row by row and `E = x + beta G a`; beta is one learned
    scalar, 0 at the start, so that the module starts as the identity. All of it runs in float32, also under autocast.

    The energies of the paper are not normalised. So its softmax is nearly one-hot on the channel itself, and the module
    is nearly `(1 + beta) x`. The other affinities mix the channels more.

    Args:
        affinity: "softmax" (the paper), "inverse" (softmax of row maximum minus energy: DANet's and CS2-Net's code), or
            "scaled" (energies of l2-normalised rows times a learned temperature, 10 at the start).
    """

    def __init__(self, affinity: str = "softmax"):
        super().__init__()
        if affinity not in ("softmax", "inverse", "scaled"):
            raise ValueError(f'affinity must be "softmax", "inverse" or "scaled", got {affinity!r}.')
        self.affinity = affinity
        self.beta = nn.Parameter(torch.zeros(1))
        if affinity == "scaled":
            self.temperature = nn.Parameter(torch.full((1,), 10.0))
        else:
            self.register_parameter("temperature", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x.flatten(2)  # (B, C, N)
        if a.dtype in (torch.float16, torch.bfloat16):
            a = a.float()
        rows = F.normalize(a, dim=2) if self.affinity == "scaled" else a
        energy = _product(rows, rows.transpose(1, 2))  # (B, C, C), up to 1e5
        temperature = self.temperature
        if temperature is not None:
            energy = energy * temperature
        if self.affinity == "inverse":
            energy = energy.amax(dim=2, keepdim=True) - energy
        weighted = _product(torch.softmax(energy, dim=2), a)
        return x + (self.beta * weighted).reshape(x.shape).to(x.dtype)


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Batched matrix product in float32, because energies reach 1e5: autocast does not change operations in place."""
    return x.new_empty(x.shape[0], x.shape[1], y.shape[2]).baddbmm_(x, y, beta=0.0)


class ConvLSTM(nn.Module):
    """Last state of a convolutional LSTM over two inputs (section 2.5, Figure 6): `(B, C_in, H, W) -> (B, C, H, W)`.

    Keras' ConvLSTM2D: one input convolution with bias, one recurrent without, both 3 x 3; `c = f c + i tanh(g)`,
    `h = o tanh(c)`; forget bias 1; no peepholes. The first state is zero, so the first step needs no recurrent
    convolution and no forget gate. The second step does its two convolutions as one, over the concatenated input. The
    function is the same, with 11 instead of 16 units of convolution. Filters have the order i, g, o, f: those of the
    first step are one slice.

    `tanh(g) = 2 sigmoid(2 g) - 1`. The filters of g are doubled, so one sigmoid computes all gates in one pass. Gate by
    gate it takes eight times as long.

    Args:
        in_channels: C_in of both inputs.
        channels: C, the filters of each gate and of the state.
        hard: gates by Keras 2's hard sigmoid, clip(0.2 x + 0.5, 0, 1), its default; the paper says sigmoid.
    """

    def __init__(self, in_channels: int, channels: int, hard: bool = False):
        super().__init__()
        self.channels, self.hard = channels, hard
        self.kernel = nn.Parameter(torch.empty(4 * channels, in_channels, 3, 3))
        self.recurrent_kernel = nn.Parameter(torch.empty(4 * channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(4 * channels))
        within = torch.ones(4 * channels)
        within[channels : 2 * channels] = 2.0
        self.register_buffer("within", within, persistent=False)
        nn.init.kaiming_normal_(self.kernel, nonlinearity="relu")
        nn.init.orthogonal_(self.recurrent_kernel)
        nn.init.ones_(self.bias.data[3 * channels :])

    def gates(self, x: torch.Tensor, kernel: torch.Tensor, filters: int) -> list[torch.Tensor]:
        """i, sigmoid(2 g), o and, of four times C filters, f; each `(B, C, H, W)`."""
        within = self.within[:filters]
        z = F.conv2d(x, kernel * within[:, None, None, None], self.bias[:filters] * within, padding=1)
        if not self.hard:
            return list(_sigmoid(z).split(self.channels, dim=1))
        parts = z.split(self.channels, dim=1)
        return [torch.sigmoid(part) if k == 1 else _hard_sigmoid(part) for k, part in enumerate(parts)]

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        three = 3 * self.channels
        gates = self.gates(first, self.kernel[:three], three)
        i, g, o = gates[0], gates[1], gates[2]
        c = (-i).addcmul_(i, g, value=2.0)  # in place: TorchScript's autocast would make it float32 otherwise
        h = _multiply(torch.tanh(c), o)
        both = torch.cat([self.kernel, self.recurrent_kernel], dim=1)
        gates = self.gates(torch.cat([second, h], dim=1), both, 4 * self.channels)
        i, g, o, f = gates[0], gates[1], gates[2], gates[3]
        c = _multiply(c, f).sub_(i).addcmul_(i, g, value=2.0)
        return _multiply(_tanh(c), o)


class AttentionRecovery(nn.Module):
    """Attention recovery module (section 2.5, Figure 5): `(B, C, H, W)` and skip `(B, C, 2H, 2W) -> (B, C/2, 2H, 2W)`.

    Upsampling block: 1 x 1 convolution to C/4, nearest upsampling, basic residual block, 1 x 1 convolution back to C.
    LSTM block: ConvLSTM over the sequence (upsampled, skip), 3 x 3 convolution to C/2.

    Args:
        channels: C, divisible by 4.
        lstm_ratio: filters of the ConvLSTM as a part of C; 1 is the paper's "(?, H, W, C)", 0.5 is BCDU-Net's.
        skip_first: order the sequence as (skip, upsampled).
        dropout: probability of dropping an element after each normalisation (in the residual block: before).
    """

    def __init__(self, channels: int, lstm_ratio: float = 1.0, skip_first: bool = False, dropout: float = 0.0):
        super().__init__()
        if channels % 4:
            raise ValueError(f"AttentionRecovery needs channels divisible by 4, got {channels}.")
        if round(channels * lstm_ratio) < 1:
            raise ValueError(f"lstm_ratio must leave at least one of {channels} filters, got {lstm_ratio}.")
        quarter, state = channels // 4, round(channels * lstm_ratio)
        self.skip_first = skip_first
        self.reduce = ConvBNReLU(channels, quarter, 1, dropout)
        self.upsample = nn.Upsample(scale_factor=2.0, mode="nearest")
        relu = ("relu", {"inplace": True})
        self.residual = UnetResBlock(2, quarter, quarter, 3, 1, "batch", relu, dropout=dropout or None)
        self.restore = ConvBNReLU(quarter, channels, 1, dropout)
        self.lstm = ConvLSTM(channels, state)
        self.halve = ConvBNReLU(state, channels // 2, 3, dropout)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.upsample(self.reduce(x))  # (B, C/4, 2H, 2W)
        x = self.restore(self.residual(x))  # (B, C, 2H, 2W), the paper's matrix (2)
        x = self.lstm(skip, x) if self.skip_first else self.lstm(x, skip)  # (B, C, 2H, 2W)
        return self.halve(x)  # (B, C/2, 2H, 2W), the paper's matrix (3)
