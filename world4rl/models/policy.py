"""The Gaussian policy pi(a | x) = N(mu(x), diag(sigma^2)) of the paper's equations 1 and 2.

It takes raw values, frames in [0, 1] and states in their own units, and normalises inside: the simulator, the
imagined environment and a robot then share one network and no preprocessing that could differ between them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from world4rl.config import BehaviourCloning
from world4rl.models.encoder import FrameEncoder, initialise

FEATURES = 256  # size of the encoder's output
HIDDEN = 256  # units of the head


class _ClampLeadingBack(torch.autograd.Function):
    """Clamp whose gradient passes outside the bounds too, where a descent step would lead back inside.

    A plain clamp has no gradient out there: a log std that one optimiser step carried past its bound, or that
    a tighter bound was put on, could never return.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bounds = (low, high)
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (value,) = ctx.saved_tensors
        (gradient,) = gradients
        low, high = ctx.bounds
        leads_out = ((value > high) & (gradient < 0)) | ((value < low) & (gradient > 0))
        return gradient.masked_fill(leads_out, 0.0), None, None


class GaussianPolicy(nn.Module):
    """Convolutional encoder, two-layer head, linear mean and a log std that no input changes.

    The mean is not squashed, so that the density is the plain Gaussian's; whoever acts clips to [-1, 1].

    Args:
        settings: Width, number of frames, whether the state is seen, bounds of the log std.
        image_size: Height and width of a frame in pixels.
        action_size: A.
        state_size: S of the data; used only where `settings.state` is true.
        camera: Name of the camera whose frames it sees; changes no number, but whoever runs the policy must know it.

    Attributes:
        log_std: (A,) parameter, used clamped to `log_std_range`.
        log_std_range: Bounds of ln sigma. May be set at any time: refinement sets its own.
        state_mean, state_std: (S,) buffers that normalise the state; set by `normalise_states`.
    """

    def __init__(
        self,
        settings: BehaviourCloning,
        *,
        image_size: tuple[int, int],
        action_size: int,
        state_size: int = 0,
        camera: str = "camera",
    ) -> None:
        super().__init__()
        if settings.state and state_size < 1:
            raise ValueError("a policy that sees the state needs state_size > 0")
        self.settings = settings
        self.image_size = image_size
        self.camera = camera
        self.frames = settings.frames
        self.action_size = action_size
        self.state_size = state_size if settings.state else 0
        self.log_std_range: tuple[float, float] = settings.log_std_range
        self.encoder = FrameEncoder(
            image_size=image_size, frames=settings.frames, width=settings.width, features=FEATURES
        )
        self.head = nn.Sequential(nn.Linear(FEATURES + self.state_size, HIDDEN), nn.ReLU(inplace=True))
        self.mean = nn.Linear(HIDDEN, action_size)
        self.log_std = nn.Parameter(torch.full((action_size,), sum(settings.log_std_range) / 2))
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                initialise(layer, gain=2**0.5)
        initialise(self.mean, gain=0.01)  # starts near zero: no action is favoured
        if self.state_size:
            self.register_buffer("state_mean", torch.zeros(self.state_size))
            self.register_buffer("state_std", torch.ones(self.state_size))

    def normalise_states(self, mean: Tensor, std: Tensor) -> None:
        """Sets the statistics, each (S,), that states are normalised by. They are saved with the weights."""
        self.get_buffer("state_mean").copy_(mean)
        self.get_buffer("state_std").copy_(std.clamp_min(1e-3))

    def forward(self, frames: Tensor, state: Tensor | None = None) -> Normal:
        """The action distribution (equation 1).

        Args:
            frames: (B, F, 3, H, W) float in [0, 1], oldest first.
            state: (B, S) in its own units; needed and used only by a policy that sees the state.

        Returns:
            A normal distribution with `mean` and `stddev` (B, A), independent over A.

        Raises:
            ValueError: the frames have another shape than the policy was built for, or the state is missing.
        """
        expected = (self.frames, 3, *self.image_size)
        if frames.shape[1:] != expected:
            raise ValueError(
                f"the policy expects frames (B, {', '.join(map(str, expected))}), got {tuple(frames.shape)}"
            )
        features = self.encoder(frames).float()
        if self.state_size:
            if state is None:
                raise ValueError(f"this policy sees the state: pass state (B, {self.state_size})")
            scaled = (state - self.get_buffer("state_mean")) / self.get_buffer("state_std")
            features = torch.cat((features, scaled), dim=-1)
        # The head stays in fp32 under autocast too: a mean rounded to bf16 is off by a good part of a small sigma.
        with torch.autocast(frames.device.type, enabled=False):
            mean = self.mean(self.head(features))
        log_std = _ClampLeadingBack.apply(self.log_std, *self.log_std_range)
        return Normal(mean, log_std.exp().expand_as(mean), validate_args=False)


def log_prob(distribution: Normal, actions: Tensor) -> Tensor:
    """ln pi(a | x) of actions (B, A), summed over A: (B,)."""
    return distribution.log_prob(actions).sum(-1)


def entropy(distribution: Normal) -> Tensor:
    """Differential entropy in nats, summed over A: (B,)."""
    return distribution.entropy().sum(-1)


def kl_divergence(distribution: Normal, reference: Normal) -> Tensor:
    """KL(distribution || reference) in nats, summed over A: (B,)."""
    return torch.distributions.kl_divergence(distribution, reference).sum(-1)


def negative_log_likelihood(distribution: Normal, actions: Tensor) -> Tensor:
    """The behaviour-cloning loss (equation 2): mean of -ln pi(a | x) over the batch, in nats; a scalar."""
    return -log_prob(distribution, actions).mean()
