"""EDM preconditioning (Karras et al. 2022, table 1; the paper's equations 4, 6 and 7)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Coefficients(NamedTuple):
    """The four functions of the noise level; each has the shape of sigma."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor


def coefficients(sigma: Tensor, sigma_data: float, offset_noise: float = 0.0) -> Coefficients:
    """c_skip, c_out, c_in and c_noise of a noise level.

    With them the network's input and its training target both have unit variance at every noise level.

    Args:
        sigma: Noise level, positive, any shape.
        sigma_data: Standard deviation of the data.
        offset_noise: Standard deviation of the noise that all pixels of a channel share; it adds to sigma.
    """
    sigma = (sigma**2 + offset_noise**2).sqrt()
    total = sigma**2 + sigma_data**2
    return Coefficients(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / total.sqrt(),
        input=1.0 / total.sqrt(),
        noise=sigma.log() / 4.0,
    )


def karras_schedule(steps: int, low: float, high: float, rho: float) -> Tensor:
    """The sampler's noise levels (Karras et al. 2022, equation 5): `steps` of them from `high` to `low`, then 0.

    Returns:
        float64 (steps + 1,).
    """
    ramp = torch.linspace(0.0, 1.0, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    sigmas = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat((sigmas, sigmas.new_zeros(1)))
