"""EDM's preconditioning (equations 4, 6 and 7) and the sampler's noise levels, against the formulae in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from world4rl.models.preconditioning import coefficients, karras_schedule

SIGMA = torch.logspace(-4, 3, 200, dtype=torch.float64)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("data", [0.5, 0.1])
def test_the_formulae(data, offset):
    c = coefficients(SIGMA, data, offset)
    for i, sigma in enumerate(SIGMA.tolist()):
        total = (sigma**2 + offset**2) ** 0.5
        assert c.skip[i].item() == pytest.approx(data**2 / (total**2 + data**2), rel=1e-12)
        assert c.out[i].item() == pytest.approx(total * data / (total**2 + data**2) ** 0.5, rel=1e-12)
        assert c.input[i].item() == pytest.approx((total**2 + data**2) ** -0.5, rel=1e-12)
        assert c.noise[i].item() == pytest.approx(torch.tensor(total, dtype=torch.float64).log().item() / 4, rel=1e-12)


@given(sigma=st.floats(1e-3, 100), data=st.floats(0.05, 2), offset=st.floats(0, 1))
def test_input_and_target_of_the_network_have_unit_variance(sigma, data, offset):
    level = torch.tensor(sigma, dtype=torch.float64)
    c = coefficients(level, data, offset)
    noise = sigma**2 + offset**2
    assert (c.input**2 * (data**2 + noise)).item() == pytest.approx(1, rel=1e-9)
    # The target is (y - c_skip (y + n)) / c_out with independent y and n.
    variance = ((1 - c.skip) ** 2 * data**2 + c.skip**2 * noise) / c.out**2
    assert variance.item() == pytest.approx(1, rel=1e-6)


def test_unit_variance_of_samples():
    random = torch.Generator().manual_seed(0)
    for sigma in (0.01, 0.5, 20.0):
        clean = 0.5 * torch.randn(200_000, generator=random, dtype=torch.float64)
        noised = clean + sigma * torch.randn(200_000, generator=random, dtype=torch.float64)
        c = coefficients(torch.tensor(sigma, dtype=torch.float64), 0.5)
        assert (c.input * noised).var().item() == pytest.approx(1, abs=0.02)
        assert ((clean - c.skip * noised) / c.out).var().item() == pytest.approx(1, abs=0.02)


def test_limits():
    none = coefficients(torch.tensor(1e-9, dtype=torch.float64), 0.5)
    assert none.skip.item() == pytest.approx(1, abs=1e-12)
    assert none.out.item() == pytest.approx(0, abs=1e-8)
    much = coefficients(torch.tensor(1e9, dtype=torch.float64), 0.5)
    assert much.skip.item() == pytest.approx(0, abs=1e-12)
    assert much.out.item() == pytest.approx(0.5, abs=1e-12)


@given(steps=st.integers(1, 30), rho=st.floats(1, 10), low=st.floats(1e-4, 1e-2), high=st.floats(1, 80))
def test_the_schedule_falls_from_high_to_low_and_then_to_zero(steps, rho, low, high):
    levels = karras_schedule(steps, low, high, rho)
    assert levels.dtype == torch.float64
    assert len(levels) == steps + 1
    assert levels[0].item() == pytest.approx(high, rel=1e-9)
    assert levels[-1].item() == 0
    assert (levels.diff() < 0).all()
    if steps > 1:
        assert levels[-2].item() == pytest.approx(low, rel=1e-6)


def test_the_schedule_by_hand():
    # Karras et al., equation 5, with rho = 2: (sqrt(4) + i / 2 (sqrt(1) - sqrt(4)))^2.
    assert karras_schedule(3, 1.0, 4.0, 2.0).tolist() == pytest.approx([4.0, 2.25, 1.0, 0.0])
