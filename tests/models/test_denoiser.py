"""The denoiser's canvases, preconditioning, loss and noise (equations 4, 6 and 7)."""

import math

import pytest
import torch

from world4rl.models.denoiser import parameter_count, to_uint8, to_unit
from world4rl.models.preconditioning import coefficients


def column(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, 1, 1, 1)


def test_all_256_levels_survive_the_way_there_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_unit(levels)), levels)
    assert to_unit(levels).min() == -1
    assert to_unit(levels).max() == 1


def test_quantisation_is_idempotent_clamped_and_rounded():
    values = torch.linspace(-1.5, 1.5, 3001)
    once = to_uint8(values)
    assert torch.equal(to_uint8(to_unit(once)), once)
    assert (once[values < -1] == 0).all()
    assert (once[values > 1] == 255).all()
    inside = values.abs() <= 1
    assert ((to_unit(once) - values).abs()[inside] <= 1 / 255 + 1e-6).all()


@pytest.mark.parametrize("fold", [1, 2, 4])
@pytest.mark.parametrize("predict_state", [False, True])
def test_unfolding_undoes_folding(make_denoiser, fold, predict_state):
    denoiser = make_denoiser(fold=fold, predict_state=predict_state)
    frames = torch.rand(4, 3, 16, 16) * 2 - 1
    states = torch.randn(4, 3) * 5 if predict_state else None
    canvas = denoiser.fold(frames, states)
    assert canvas.shape == (4, 3 * fold**2 + (3 if predict_state else 0), 16 // fold, 16 // fold)
    back, back_states = denoiser.unfold(canvas)
    assert torch.equal(back, frames)
    if predict_state:
        torch.testing.assert_close(back_states, states)
    else:
        assert back_states is None


def test_folding_keeps_leading_dimensions_and_pixels_in_their_places(make_denoiser):
    denoiser = make_denoiser(fold=2)
    frames = torch.rand(2, 5, 3, 16, 16)
    canvas = denoiser.fold(frames, None)
    assert canvas.shape == (2, 5, 12, 8, 8)
    # Channel c f^2 + f i + j of canvas pixel (y, x) is channel c of pixel (f y + i, f x + j).
    assert torch.equal(canvas[1, 3, 2 * 4 + 2 * 1 + 0, 5, 6], frames[1, 3, 2, 2 * 5 + 1, 2 * 6])


def test_state_planes_are_constant_and_normalised(make_denoiser):
    denoiser = make_denoiser(predict_state=True)
    states = denoiser.get_buffer("state_mean") + 2 * denoiser.get_buffer("state_std")
    planes = denoiser.fold(torch.zeros(1, 3, 16, 16), states[None])[0, 12:]
    torch.testing.assert_close(planes, torch.ones(3, 8, 8))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("predict_state", [False, True])
def test_decoding_the_target_gives_the_truth(make_denoiser, make_context, residual, predict_state):
    denoiser = make_denoiser(residual=residual, predict_state=predict_state)
    context = make_context(denoiser)
    frames = torch.rand(3, 3, 16, 16) * 2 - 1
    states = torch.randn(3, 3) if predict_state else None
    target = denoiser.target(frames, states, context)
    decoded, decoded_states = denoiser.decode(target, context)
    torch.testing.assert_close(decoded, frames)
    if predict_state:
        torch.testing.assert_close(decoded_states, states)


def test_the_residual_of_a_still_picture_is_nothing(make_denoiser, make_context):
    denoiser = make_denoiser(residual=True, predict_state=True)
    context = make_context(denoiser)
    target = denoiser.target(context.frames[:, -1], context.states[:, -1], context)
    assert target.abs().max() == 0


def test_the_denoiser_is_the_preconditioned_network(make_denoiser, make_context):
    denoiser = make_denoiser()
    s, context = denoiser.settings, make_context(denoiser)
    noised, sigma = torch.randn(3, 12, 8, 8), torch.tensor([0.01, 0.7, 9.0])
    output = denoiser(noised, sigma, context)
    c = coefficients(sigma.double(), s.sigma_data, s.sigma_offset_noise)
    expected = column(c.skip) * noised + column(c.out) * output
    torch.testing.assert_close(denoiser.denoise(noised, sigma, context).double(), expected)


def test_the_network_sees_the_scaled_canvas_and_the_folded_history(make_denoiser, make_context):
    denoiser = make_denoiser(sigma_data=0.2)
    s, context = denoiser.settings, make_context(denoiser)
    seen = []
    hook = denoiser.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noised, sigma = torch.randn(3, 12, 8, 8), torch.tensor([0.01, 0.7, 9.0])
    denoiser(noised, sigma, context)
    hook.remove()
    (canvas,) = seen
    scale = coefficients(sigma, s.sigma_data, s.sigma_offset_noise).input
    torch.testing.assert_close(canvas[:, :12], column(scale) * noised)
    for step in range(s.history):  # oldest first
        part = canvas[:, 12 * (step + 1) : 12 * (step + 2)]
        torch.testing.assert_close(part, 2 * denoiser.fold(context.frames[:, step], None))


def test_the_loss_weighs_the_denoisers_error_by_the_inverse_square_of_c_out(make_denoiser, make_context):
    denoiser = make_denoiser()
    s, context = denoiser.settings, make_context(denoiser)
    target = torch.randn(3, 12, 8, 8)
    noised, sigma = denoiser.add_noise(target, torch.Generator().manual_seed(0))
    output = denoiser(noised, sigma, context)
    error = (denoiser.estimate(noised, sigma, output) - target).double() ** 2
    weight = 1 / coefficients(sigma.double(), s.sigma_data, s.sigma_offset_noise).out ** 2
    expected = (column(weight) * error).mean()
    assert denoiser.loss(target, noised, sigma, output).item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_true_target_has_no_loss(make_denoiser):
    denoiser = make_denoiser()
    target = torch.randn(4, 12, 8, 8)
    noised, sigma = denoiser.add_noise(target, torch.Generator().manual_seed(0))
    c = coefficients(sigma, denoiser.settings.sigma_data, denoiser.settings.sigma_offset_noise)
    output = (target - column(c.skip) * noised) / column(c.out)
    assert denoiser.loss(target, noised, sigma, output).item() < 1e-9
    torch.testing.assert_close(denoiser.estimate(noised, sigma, output), target, rtol=1e-4, atol=1e-4)


def test_training_noise_is_log_normal_and_clipped(make_denoiser):
    denoiser = make_denoiser(training_sigma_mean=-0.4, training_sigma_std=1.2, training_sigma_range=(0.05, 3.0))
    _, sigma = denoiser.add_noise(torch.zeros(20_000, 1, 1, 1), torch.Generator().manual_seed(0))
    assert sigma.min() == pytest.approx(0.05)
    assert sigma.max() == pytest.approx(3.0)
    quantiles = sigma.log().quantile(torch.tensor([0.16, 0.5, 0.84]))
    torch.testing.assert_close(quantiles, torch.tensor([-0.4 - 1.2, -0.4, -0.4 + 1.2]), rtol=0, atol=0.06)


def test_noise_has_its_level_and_the_offset(make_denoiser):
    two = {"training_sigma_mean": math.log(2.0), "training_sigma_std": 1e-6}
    denoiser = make_denoiser(sigma_offset_noise=0.3, **two)
    target = torch.full((64, 12, 8, 8), 5.0)
    noised, sigma = denoiser.add_noise(target, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sigma, torch.full((64,), 2.0))
    noise = noised - target
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.var((-2, -1)).mean().sqrt().item() == pytest.approx(2.0, rel=0.02)
    # A channel's pixels share the offset: the channel means vary by it and by what is left of the pixels' noise.
    assert noise.mean((-2, -1)).var().item() == pytest.approx(0.3**2 + 2.0**2 / 64, rel=0.15)
    single = make_denoiser(sigma_offset_noise=0.0, **two)
    means = (single.add_noise(target, torch.Generator().manual_seed(0))[0] - target).mean((-2, -1))
    assert means.var().item() == pytest.approx(2.0**2 / 64, rel=0.15)


@pytest.mark.parametrize("initial", [0.0, 0.5, 1.0])
def test_the_sampler_starts_from_its_first_level_and_its_share_of_noise(make_denoiser, initial: float):
    denoiser = make_denoiser(sampling_initial_noise=initial, sampling_sigma_range=(0.01, 3.0))
    canvas, sigma = denoiser.sampler_start(torch.Size((64, 12, 8, 8)), torch.Generator().manual_seed(0))
    assert (sigma == 3.0).all()
    assert canvas.std().item() == pytest.approx(3.0 * initial, rel=0.02)


def test_everything_that_the_condition_holds_changes_the_estimate(make_denoiser, make_context):
    denoiser = make_denoiser(task_conditioning=True, predict_state=True, reference_frame=True)
    context = make_context(denoiser)
    noised, sigma = torch.randn(3, 15, 8, 8), torch.full((3,), 0.5)
    assert context.reference is not None

    def output(context=context, sigma=sigma, level=None):
        return denoiser(noised, sigma, context, level)

    base = output()
    assert torch.equal(output(), base)
    for step in range(denoiser.settings.history):
        for name in ("frames", "actions", "states"):
            changed = getattr(context, name).clone()
            changed[:, step] *= -1
            assert not torch.allclose(output(context._replace(**{name: changed})), base), (name, step)
    assert not torch.allclose(output(context._replace(task=1 - context.task % 2)), base)
    assert not torch.allclose(output(context._replace(reference=-context.reference)), base)
    assert not torch.allclose(output(sigma=2 * sigma), base)
    assert not torch.allclose(output(level=torch.full((3,), 0.5)), base)
    assert torch.equal(output(level=torch.zeros(3)), base), "no level means no noise"


def test_rows_do_not_see_one_another(make_denoiser, make_context):
    denoiser = make_denoiser()
    context = make_context(denoiser)
    noised, sigma = torch.randn(3, 12, 8, 8), torch.tensor([0.1, 1.0, 5.0])
    together = denoiser.denoise(noised, sigma, context)
    alone = denoiser.denoise(
        noised[1:2],
        sigma[1:2],
        context._replace(**{name: getattr(context, name)[1:2] for name in ("frames", "actions")}),
    )
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_ranges_come_from_the_data(make_denoiser):
    denoiser = make_denoiser(predict_state=True)
    actions = torch.tensor([[-0.2, 0.7], [0.9, 0.7], [0.1, 0.7]])
    states = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 7.0]])
    denoiser.fit(actions, states)
    torch.testing.assert_close(denoiser.get_buffer("action_low"), torch.tensor([-0.2, 0.7]))
    high = denoiser.get_buffer("action_high")
    assert high[0] == pytest.approx(0.9)
    assert high[1] > 0.7, "a constant action still has a range"
    torch.testing.assert_close(denoiser.get_buffer("state_mean"), torch.tensor([2.0, 2.0, 5.0]))
    torch.testing.assert_close(denoiser.get_buffer("state_std"), torch.tensor([2**0.5, 1e-3, 8**0.5]))


def test_parameters_are_counted(make_denoiser):
    denoiser = make_denoiser()
    total = sum(p.numel() for p in denoiser.parameters())
    assert parameter_count(denoiser) == total
    denoiser.condition.requires_grad_(False)
    assert parameter_count(denoiser) == total - sum(p.numel() for p in denoiser.condition.parameters())
