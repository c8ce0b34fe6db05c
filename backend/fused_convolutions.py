"""Convolutions of a detector that serves on a CPU, with what follows them, as single oneDNN calls.

Three things cost a trunk half of its time on one thread, none of them arithmetic: PyTorch takes a slow path (im2col,
copies) for 1 x 1 convolutions of small batches, each ReLU writes its whole map again, and the "same" padding of
TensorFlow's networks copies the widest maps of all. The answers stay the same to float32 rounding.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from timm.layers import Conv2dSame
from timm.models._efficientnet_blocks import InvertedResidual
from torch import Tensor, nn
from torch.nn import functional as F

# oneDNN's names for activations, with their numbers.
_ACTIVATIONS = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}


def available() -> bool:
    """Whether this PyTorch has the operation; it is the one that torch.compile uses on CPUs."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class FusedConvolution(nn.Module):
    """A convolution and its activation. Inference on CPUs in float32 only.

    pad_after: further zeros behind the right and lower edge of what comes out, for a convolution after this one.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None, pad_after: int = 0) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        # Sides are multiples of 32, so all that is halved is even: "same" then pads one more behind than before.
        self.padding = [(size - 2) // 2 for size in conv.kernel_size] if is_halving(conv) else list(conv.padding)
        self.name, self.numbers = ("none", []) if activation is None else _ACTIVATIONS[type(activation)]
        self.pad_after = pad_after

    def forward(self, x: Tensor) -> Tensor:
        if self.pad_after:
            x = F.pad(x, (0, self.pad_after, 0, self.pad_after))
        y = torch.ops.mkldnn._convolution_pointwise(
            *(x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups),
            *(self.name, self.numbers, ""),
        )
        if self.pad_after:  # a bias has made something of the zeros
            y[:, :, -self.pad_after :] = 0
            y[:, :, :, -self.pad_after :] = 0
        return y


def is_halving(conv: nn.Module) -> bool:
    """Whether this is a convolution with TensorFlow's padding that halves the sides of its map."""
    return isinstance(conv, Conv2dSame) and tuple(conv.stride) == (2, 2)


class PaddedBefore(nn.Module):
    """A halving convolution behind which nothing could pad: the stem, whose three channels are cheap to copy."""

    def __init__(self, conv: FusedConvolution) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


def fuse_convolutions(module: nn.Module) -> None:
    """Replace the convolutions below `module`, whose batch norms are folded already, in place."""
    children = [*module.named_children(), ("", nn.Identity())]
    for (name, child), (next_name, following) in pairwise(children):
        if not isinstance(child, nn.Conv2d):
            fuse_convolutions(child)
            continue
        activation = _activation(following)
        if activation is not None:
            setattr(module, next_name, nn.Identity())
        feeds_halving = isinstance(module, InvertedResidual) and name == "conv_pw" and is_halving(module.conv_dw)
        fused = FusedConvolution(child, activation, pad_after=1 if feeds_halving else 0)
        fed = isinstance(module, InvertedResidual) and name == "conv_dw"
        setattr(module, name, PaddedBefore(fused) if is_halving(child) and not fed else fused)


def _activation(following: nn.Module) -> nn.Module | None:
    """The activation that comes next, bare or as what `fold_batch_norm` left of a batch norm, if it can be fused."""
    if isinstance(following, nn.Sequential) and len(following) == 2 and isinstance(following[0], nn.Identity):
        following = following[1]
    return following if type(following) in _ACTIVATIONS else None
