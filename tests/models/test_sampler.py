"""The deterministic sampler, with denoisers whose answers are known."""

import pytest
import torch

from world4rl.models.denoiser import to_uint8
from world4rl.models.preconditioning import karras_schedule
from world4rl.models.sampler import sample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("residual", [False, True])
def test_a_denoiser_that_knows_the_answer_gives_it(make_denoiser, make_context, monkeypatch, steps, residual):
    denoiser = make_denoiser(residual=residual, predict_state=True)
    context = make_context(denoiser)
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    states = torch.randn(3, 3)
    target = denoiser.target(frames.float() / 127.5 - 1, states, context)
    monkeypatch.setattr(denoiser, "denoise", lambda x, sigma, context: target)
    drawn, drawn_states = sample(denoiser, context, generator(), steps=steps)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, frames)
    torch.testing.assert_close(drawn_states, states)


def test_starts_from_noise_of_the_first_level_and_walks_down_the_schedule(make_denoiser, make_context, monkeypatch):
    denoiser = make_denoiser(sampling_steps=4, sampling_sigma_range=(0.01, 7.0), sampling_rho=3.0)
    context = make_context(denoiser, batch=64)
    visited = []

    def record(x, sigma, context):
        visited.append((x.clone(), sigma.clone()))
        return torch.zeros_like(x)

    monkeypatch.setattr(denoiser, "denoise", record)
    sample(denoiser, context, generator())
    schedule = karras_schedule(4, 0.01, 7.0, 3.0)
    assert len(visited) == 4
    start = visited[0][0]
    assert start.shape == (64, 12, 8, 8)
    assert start.std().item() == pytest.approx(7.0, rel=0.02)
    assert start.mean().item() == pytest.approx(0, abs=0.1)
    for (x, sigma), level in zip(visited, schedule.tolist(), strict=False):
        assert sigma.shape == (64,)
        assert (sigma == torch.tensor(level)).all()
        # Around a clean canvas of zeros the noise shrinks with its level.
        torch.testing.assert_close(x, start * (level / 7.0), rtol=1e-4, atol=1e-5)


def test_steps_are_eulers(make_denoiser, make_context, monkeypatch):
    """For D(x) = a x every step multiplies x by a + (1 - a) sigma_next / sigma; the last step leaves a x."""
    denoiser = make_denoiser(residual=False, sampling_sigma_range=(0.5, 2.0), sampling_rho=1.0)
    context = make_context(denoiser)
    first, decoded = [], []
    monkeypatch.setattr(denoiser, "denoise", lambda x, sigma, context: first.append(x.clone()) or 0.2 * x)
    decode = denoiser.decode
    monkeypatch.setattr(denoiser, "decode", lambda x, context: decoded.append(x) or decode(x, context))
    sample(denoiser, context, generator(), steps=3)
    factor = (0.2 + 0.8 * 1.25 / 2.0) * (0.2 + 0.8 * 0.5 / 1.25) * 0.2
    torch.testing.assert_close(decoded[0], factor * first[0])


def test_one_step_is_the_denoisers_estimate(make_denoiser, make_context):
    denoiser = make_denoiser()
    context = make_context(denoiser)
    high = denoiser.settings.sampling_sigma_range[1]
    with torch.no_grad():
        start = high * torch.randn(3, 12, 8, 8, generator=generator(5))
        frames, _ = denoiser.decode(denoiser.denoise(start, torch.full((3,), high), context), context)
    drawn, states = sample(denoiser, context, generator(5), steps=1)
    assert torch.equal(drawn, to_uint8(frames))
    assert states is None


def test_the_generator_decides(make_denoiser, make_context):
    denoiser = make_denoiser(sampling_steps=2)
    context = make_context(denoiser)
    first, _ = sample(denoiser, context, generator(1))
    torch.randn(10)  # torch's global generator has no part
    assert torch.equal(sample(denoiser, context, generator(1))[0], first)
    assert not torch.equal(sample(denoiser, context, generator(2))[0], first)
    assert torch.equal(sample(denoiser, context, generator(1), steps=2)[0], first)
    assert not torch.equal(sample(denoiser, context, generator(1), steps=1)[0], first)


def test_no_gradient_is_kept(make_denoiser, make_context):
    denoiser = make_denoiser(predict_state=True)
    _, states = sample(denoiser, make_context(denoiser), generator())
    assert not states.requires_grad
