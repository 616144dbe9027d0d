"""The diffusion world model's denoiser: a diffusers U-Net under EDM preconditioning (the paper's equations 4 to 7).

It works on *canvases*: pixels folded into channels (H x W x 3 becomes H/f x W/f x 3f^2), and, where the model
predicts the proprioceptive state, one constant plane a state dimension. With `residual` the canvas that is diffused
is the change from the last frame, which most pixels do not have: small budgets learn it many times faster.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from world4rl.config import WorldModel
from world4rl.models.preconditioning import coefficients
from world4rl.models.two_hot import two_hot

FRAME_STD = 0.5  # of frames in [-1, 1], about: what the network sees of the history then has unit variance


class Context(NamedTuple):
    """What the next frame depends on: n past steps, oldest first.

    Attributes:
        frames: (B, n, 3, H, W) in [-1, 1].
        actions: (B, n, A); the last one is the action whose outcome is predicted.
        states: (B, n, S), or None where the model predicts no state.
        task: (B,) int64, or None where the model is not told the task.
        reference: (B, 3, H, W) in [-1, 1], the episode's first frame, or None where the model is not shown it.
    """

    frames: Tensor
    actions: Tensor
    states: Tensor | None = None
    task: Tensor | None = None
    reference: Tensor | None = None


class Shapes(NamedTuple):
    """The data's sizes, which with the settings define a denoiser."""

    image_size: int
    action_size: int
    state_size: int = 0
    tasks: int = 1


def to_unit(frames: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return frames.float() / 127.5 - 1.0


def to_uint8(frames: Tensor) -> Tensor:
    """float [-1, 1] to uint8, rounded: generated frames take the same 256 levels as real ones."""
    return ((frames.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


class Denoiser(nn.Module):
    """D(x; sigma, context): the clean canvas, estimated from a noised one.

    Args:
        settings: The model's architecture and training noise.
        shapes: The data's sizes.

    Attributes:
        action_low, action_high: (A,) buffers, the two-hot range; set by `fit`.
        state_mean, state_std: (S,) buffers; set by `fit`.
    """

    def __init__(self, settings: WorldModel, shapes: Shapes) -> None:
        super().__init__()
        self.settings = settings
        self.shapes = shapes
        self.state_size = shapes.state_size if settings.predict_state else 0
        pixels = 3 * settings.fold**2
        self.canvas = pixels + self.state_size
        width = settings.conditioning_width
        levels = settings.attention_levels
        self.unet = UNet2DModel(
            sample_size=shapes.image_size // settings.fold,
            in_channels=self.canvas * (settings.history + 1) + pixels * settings.reference_frame,
            out_channels=self.canvas,
            layers_per_block=settings.blocks_per_level,
            block_out_channels=settings.channels,
            down_block_types=tuple("AttnDownBlock2D" if level else "DownBlock2D" for level in levels),
            up_block_types=tuple("AttnUpBlock2D" if level else "UpBlock2D" for level in reversed(levels)),
            add_attention=settings.mid_attention,
            class_embed_type="identity",
            time_embedding_dim=width,
            resnet_time_scale_shift="scale_shift",
            norm_num_groups=settings.norm_groups,
        )
        inputs = settings.history * shapes.action_size * settings.action_bins
        if settings.task_conditioning:
            inputs += shapes.tasks
        # The last input is the level of the noise on the history.
        self.condition = nn.Sequential(nn.Linear(inputs + 1, width), nn.SiLU(), nn.Linear(width, width))
        self.register_buffer("action_low", -torch.ones(shapes.action_size))
        self.register_buffer("action_high", torch.ones(shapes.action_size))
        self.register_buffer("state_mean", torch.zeros(self.state_size))
        self.register_buffer("state_std", torch.ones(self.state_size))
        nn.init.zeros_(self.unet.conv_out.weight)

    def fit(self, actions: Tensor, states: Tensor | None) -> None:
        """Takes the two-hot range (actions (N, A)) and the state's scale (states (N, S)) from the training data."""
        low, high = actions.amin(0), actions.amax(0)
        self.get_buffer("action_low").copy_(low)
        self.get_buffer("action_high").copy_(torch.maximum(high, low + 1e-3))
        if self.state_size:
            assert states is not None
            self.get_buffer("state_mean").copy_(states.mean(0))
            self.get_buffer("state_std").copy_(states.std(0).clamp_min(1e-3))

    def fold(self, frames: Tensor, states: Tensor | None) -> Tensor:
        """Frames (..., 3, H, W) and states (..., S) to canvases (..., C, H/f, W/f)."""
        lead = frames.shape[:-3]
        canvas = F.pixel_unshuffle(frames.reshape(-1, *frames.shape[-3:]), self.settings.fold)
        if self.state_size:
            assert states is not None
            scaled = (states - self.get_buffer("state_mean")) / self.get_buffer("state_std")
            # Half of a standard deviation a unit: about the spread that pixels have in [-1, 1].
            planes = 0.5 * scaled.reshape(-1, self.state_size, 1, 1).expand(-1, -1, *canvas.shape[-2:])
            canvas = torch.cat((canvas, planes.to(canvas.dtype)), dim=1)
        return canvas.unflatten(0, lead)

    def unfold(self, canvas: Tensor) -> tuple[Tensor, Tensor | None]:
        """Canvases (B, C, h, w) back to frames (B, 3, H, W) and, where the model predicts them, states (B, S)."""
        pixels = self.canvas - self.state_size
        frames = F.pixel_shuffle(canvas[:, :pixels], self.settings.fold)
        if not self.state_size:
            return frames, None
        scaled = canvas[:, pixels:].mean((-2, -1)) / 0.5
        return frames, scaled * self.get_buffer("state_std") + self.get_buffer("state_mean")

    def forward(self, noised: Tensor, sigma: Tensor, context: Context, history_level: Tensor | None = None) -> Tensor:
        """The raw network F(c_in x; c_noise, context).

        Args:
            noised: (B, C, h, w), a canvas with noise of level sigma.
            sigma: (B,).
            context: Of B rows; its frames may carry noise of standard deviation `history_level`.
            history_level: (B,); None: no noise.

        Returns:
            (B, C, h, w); `denoise` turns it into a clean canvas.
        """
        c = coefficients(sigma, self.settings.sigma_data, self.settings.sigma_offset_noise)
        seen = [self.fold(context.frames, context.states).flatten(1, 2)]
        if self.settings.reference_frame:
            assert context.reference is not None
            seen.append(F.pixel_unshuffle(context.reference, self.settings.fold))
        canvas = torch.cat((_column(c.input) * noised, *(frames / FRAME_STD for frames in seen)), dim=1)
        # diffusers' sinusoids expect times up to about 1000; c_noise lies in about [-1.6, 0.8].
        time = (c.noise + 2.0) * 300.0
        return self.unet(canvas, time, class_labels=self._condition(context, history_level)).sample

    def denoise(self, noised: Tensor, sigma: Tensor, context: Context, history_level: Tensor | None = None) -> Tensor:
        """D(x; sigma, context) = c_skip x + c_out F(...) (equation 6): (B, C, h, w)."""
        return self.estimate(noised, sigma, self(noised, sigma, context, history_level))

    def estimate(self, noised: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """D = c_skip x + c_out F from the raw network's output F (equation 6): (B, C, h, w) in float32."""
        c = coefficients(sigma, self.settings.sigma_data, self.settings.sigma_offset_noise)
        return _column(c.skip) * noised + _column(c.out) * output.float()

    def target(self, frames: Tensor, states: Tensor | None, context: Context) -> Tensor:
        """The canvas to diffuse for the true next frame (B, 3, H, W) and state (B, S)."""
        canvas = self.fold(frames, states)
        return canvas - self._base(context) if self.settings.residual else canvas

    def decode(self, canvas: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """A clean canvas to the frames (B, 3, H, W), unclamped, and states (B, S) that it stands for."""
        return self.unfold(canvas + self._base(context) if self.settings.residual else canvas)

    def _base(self, context: Context) -> Tensor:
        states = None if context.states is None else context.states[:, -1]
        return self.fold(context.frames[:, -1], states)

    def _condition(self, context: Context, history_level: Tensor | None) -> Tensor:
        low, high = self.get_buffer("action_low"), self.get_buffer("action_high")
        parts = [two_hot(context.actions, low, high, self.settings.action_bins).flatten(1)]
        if self.settings.task_conditioning:
            assert context.task is not None
            parts.append(F.one_hot(context.task, self.shapes.tasks).to(parts[0].dtype))
        level = parts[0].new_zeros(len(parts[0])) if history_level is None else history_level
        return self.condition(torch.cat((*parts, level.unsqueeze(1)), dim=1))

    def add_noise(self, target: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noises a canvas for training: independent noise a pixel and offset noise a channel.

        Args:
            target: (B, C, h, w).
            noise: Draws everything, on the target's device.

        Returns:
            The noised canvas (B, C, h, w) and its levels (B,), log-normal (EDM, section 5).
        """
        s = self.settings
        drawn = torch.randn(len(target), generator=noise, device=noise.device) * s.training_sigma_std
        sigma = (drawn + s.training_sigma_mean).exp().clamp(*s.training_sigma_range)
        pixels = torch.randn(target.shape, generator=noise, device=noise.device)
        offset = torch.randn((*target.shape[:2], 1, 1), generator=noise, device=noise.device)
        return target + _column(sigma) * pixels + s.sigma_offset_noise * offset, sigma

    def sampler_start(self, shape: torch.Size, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the sampler starts from: noise of `sampling_initial_noise` times its first level, and that level.

        Args:
            shape: (B, C, h, w).
            noise: Draws it, on its own device.

        Returns:
            Canvases (B, C, h, w) and their levels (B,).
        """
        s = self.settings
        first = s.sampling_sigma_range[1]
        canvas = torch.randn(shape, generator=noise, device=noise.device) * (first * s.sampling_initial_noise)
        return canvas, torch.full((shape[0],), first, device=noise.device)

    def loss(self, target: Tensor, noised: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """Mean squared error of F against its own target (target - c_skip x) / c_out: a scalar.

        That is EDM's loss with weight lambda(sigma) = 1 / c_out^2 (equation 7).
        """
        c = coefficients(sigma, self.settings.sigma_data, self.settings.sigma_offset_noise)
        wanted = (target - _column(c.skip) * noised) / _column(c.out)
        return F.mse_loss(output.float(), wanted)


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
