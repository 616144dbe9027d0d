"""The paper's equation 5."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from world4rl.models.two_hot import two_hot

numbers = st.floats(-1e3, 1e3, allow_nan=False)


@st.composite
def encodings(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Values (N, A), some outside the range; the range's ends (A,); the number of bins."""
    dimensions, rows = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    low = torch.tensor(draw(st.lists(numbers, min_size=dimensions, max_size=dimensions)), dtype=torch.float64)
    width = draw(st.lists(st.floats(1e-3, 1e3), min_size=dimensions, max_size=dimensions))
    high = low + torch.tensor(width, dtype=torch.float64)
    size = rows * dimensions
    place = torch.tensor(draw(st.lists(st.floats(-0.5, 1.5), min_size=size, max_size=size)), dtype=torch.float64)
    return low + place.reshape(rows, dimensions) * (high - low), low, high, draw(st.integers(2, 40))


def centres(low: torch.Tensor, high: torch.Tensor, bins: int) -> torch.Tensor:
    """The bins' centres (A, K)."""
    return low[:, None] + (high - low)[:, None] * torch.arange(bins, dtype=torch.float64) / (bins - 1)


@given(encodings())
def test_weights_sum_to_one_on_at_most_two_neighbours(case):
    values, low, high, bins = case
    encoded = two_hot(values, low, high, bins)
    assert encoded.shape == (*values.shape, bins)
    assert encoded.dtype == torch.float64
    assert (encoded >= 0).all()
    torch.testing.assert_close(encoded.sum(-1), torch.ones_like(values), rtol=0, atol=1e-12)
    for weights in encoded.reshape(-1, bins):
        places = weights.nonzero().flatten()
        assert 1 <= len(places) <= 2
        assert places[-1] - places[0] <= 1


@given(encodings())
def test_the_weights_mean_of_the_centres_is_the_value_clipped_to_the_range(case):
    values, low, high, bins = case
    mean = (two_hot(values, low, high, bins) * centres(low, high, bins)).sum(-1)
    torch.testing.assert_close(mean, values.clamp(low, high), rtol=1e-9, atol=1e-9)


@given(encodings())
def test_the_two_bins_are_the_nearest_ones(case):
    values, low, high, bins = case
    step = (high - low) / (bins - 1)
    distance = (centres(low, high, bins) - values.clamp(low, high)[..., None]).abs() / step[:, None]
    used = two_hot(values, low, high, bins) > 1e-9
    assert (distance[used] < 1 + 1e-6).all()


def test_by_hand():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])
    encoded = two_hot(torch.tensor([[0.5, 1.0], [-1.0, 4.0], [7.0, -7.0]]), low, high, 5)
    expected = [
        [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0]],
        [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]],
        [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]],
    ]
    assert encoded.tolist() == expected
    torch.testing.assert_close(
        two_hot(torch.tensor([0.1]), torch.tensor([-1.0]), torch.tensor([1.0]), 3), torch.tensor([[0.0, 0.9, 0.1]])
    )
