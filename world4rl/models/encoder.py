"""The small convolutional eye that policy and critic each have one of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SMALLEST = 4  # pixels: halving stops here, so that a feature map still says where things are


class FrameEncoder(nn.Module):
    """Stride-2 convolutions over stacked frames, then one linear layer with LayerNorm.

    Every convolution halves the frame until no side is above 4 pixels; a flattened map, and not its average,
    goes on, because position is what an action depends on. LayerNorm and tanh bound the features: without
    them a few large PPO updates can blow the head up.

    Args:
        image_size: Height and width of a frame in pixels.
        frames: Frames that are stacked into channels.
        width: Channels of the first two convolutions; the later ones have twice as many.
        features: Size of the output.
    """

    def __init__(self, *, image_size: tuple[int, int], frames: int, width: int, features: int) -> None:
        super().__init__()
        height, wide = image_size
        layers: list[nn.Module] = []
        inputs = 3 * frames
        while max(height, wide) > SMALLEST:
            outputs = width if len(layers) < 4 else 2 * width
            layers += [nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1), nn.ReLU(inplace=True)]
            inputs, height, wide = outputs, math.ceil(height / 2), math.ceil(wide / 2)
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Sequential(nn.Flatten(), nn.Linear(inputs * height * wide, features), nn.LayerNorm(features))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                initialise(layer, gain=math.sqrt(2))

    def forward(self, frames: Tensor) -> Tensor:
        """Encodes frames.

        Args:
            frames: (B, F, 3, H, W) in [0, 1], oldest first.

        Returns:
            (B, features) in [-1, 1].
        """
        # channels_last: oneDNN's faster path for thin convolutions.
        pixels = (2 * frames.flatten(1, 2) - 1).contiguous(memory_format=torch.channels_last)
        return torch.tanh(self.project(self.convolutions(pixels)))


def initialise(layer: nn.Conv2d | nn.Linear, *, gain: float) -> None:
    """Orthogonal weights and zero bias: activations keep their size through the depth."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
