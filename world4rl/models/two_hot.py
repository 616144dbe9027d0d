"""Two-hot action encoding (the paper's equation 5)."""

from __future__ import annotations

import torch
from torch import Tensor


def two_hot(values: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Spreads each value onto its two nearest of `bins` equally spaced bin centres, with weights that sum to 1.

    The encoding is exact inside the range: the weights' mean of the bin centres is the value. A value outside
    is clipped to the range.

    Args:
        values: (..., A).
        low: (A,), the first bin's centre in each dimension.
        high: (A,), the last bin's centre; greater than `low`.
        bins: K, at least 2.

    Returns:
        (..., A, K), at most two neighbours non-zero.
    """
    position = ((values - low) / (high - low)).clamp(0.0, 1.0) * (bins - 1)
    left = position.floor().clamp(max=bins - 2)
    weight = position - left
    index = left.long().unsqueeze(-1)
    encoded = torch.zeros(*values.shape, bins, dtype=values.dtype, device=values.device)
    encoded.scatter_(-1, index, (1.0 - weight).unsqueeze(-1))
    return encoded.scatter_(-1, index + 1, weight.unsqueeze(-1))
