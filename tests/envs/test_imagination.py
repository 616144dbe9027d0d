"""Real moments to start from, and the frozen model rolled forward from them."""

import numpy as np
import pytest
import torch

from world4rl.demos.store import EpisodeStore
from world4rl.demos.windows import WindowSampler
from world4rl.envs.imagination import StartStates, advance, replay

TASK = "button-press-topdown-v3"
HISTORY = 3


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def store(write_store, tmp_path) -> EpisodeStore:
    """Of the training episodes, 0 shows its first success in row 6; 1 never does. Episode 2 is a test episode."""
    write_store(tmp_path / "store")
    return EpisodeStore.open(tmp_path / "store")


@pytest.fixture
def starts(store) -> StartStates:
    return StartStates([store], history=HISTORY, tasks=(TASK,))


def rows(moment) -> torch.Tensor:
    """The row that each moment's frames say they are: (B, n)."""
    return moment.frames[:, :, 0, 0, 0].long()


def episodes(moment) -> torch.Tensor:
    return moment.frames[:, -1, 1, 0, 0].long()


def test_moments_are_the_window_samplers_windows(store, starts):
    sampler = WindowSampler([store], length=HISTORY, history=HISTORY, reference=True)
    lengths = [9, 7]
    assert len(sampler) == sum(lengths)
    places = np.array([(episode, row) for episode, length in enumerate(lengths) for row in range(length)])
    windows, moments = sampler.take(np.arange(len(places))), starts.take(places)
    assert not windows.valid[:2].all(), "padding before the start is among them"
    assert torch.equal(moments.frames, windows.frames)
    assert torch.equal(moments.actions, windows.actions[:, :-1])
    assert torch.equal(moments.states, windows.states)
    assert torch.equal(moments.task, windows.task)
    assert torch.equal(moments.reference, windows.reference)
    assert (moments.reference[:, 0, 0, 0] == 0).all(), "row 0 of its own episode"
    assert torch.equal(moments.reference[:, 1, 0, 0], moments.frames[:, -1, 1, 0, 0])


def test_starts_are_every_episodes_first_row(starts):
    moment = starts.starts()
    assert starts.episodes == 2
    assert episodes(moment).tolist() == [0, 1]
    assert (rows(moment) == 0).all()
    assert (moment.actions == 0).all()


def test_other_splits(store):
    held_out = StartStates([store], history=HISTORY, tasks=(TASK,), splits=("test",))
    assert episodes(held_out.starts()).tolist() == [2]
    assert held_out.first_success == [5]


def test_rows_are_the_stores_not_the_datasets(write_store, tmp_path):
    """Where episodes were quarantined, an episode's number in its dataset is not its row in the store."""
    write_store(tmp_path / "store", numbers=(1, 4, 9))
    moment = StartStates(
        [EpisodeStore.open(tmp_path / "store")], history=HISTORY, tasks=(TASK,), splits=("train", "test")
    ).starts()
    assert episodes(moment).tolist() == [0, 1, 2]


def test_tasks_are_numbered_as_the_world_model_does(write_store, tmp_path):
    write_store(tmp_path / "a", task="handle-press-v3")
    write_store(tmp_path / "b", task=TASK)
    stores = [EpisodeStore.open(tmp_path / name) for name in "ab"]
    starts = StartStates(stores, history=HISTORY, tasks=(TASK, "handle-press-v3"))
    assert starts.starts().task.tolist() == [1, 1, 0, 0]


def test_draws_never_start_at_or_after_a_success(starts):
    moment, left = starts.draw(4000, 1.0, np.random.default_rng(0))
    seen = {(e, r) for e, r in zip(episodes(moment).tolist(), rows(moment)[:, -1].tolist(), strict=True)}
    assert seen == {(0, row) for row in range(1, 6)} | {(1, row) for row in range(1, 7)}
    assert torch.equal(left, torch.tensor([9, 7])[episodes(moment).long()] - rows(moment)[:, -1])


def test_the_share_of_draws_inside_an_episode(starts):
    moment, _ = starts.draw(4000, 0.25, np.random.default_rng(0))
    inside = rows(moment)[:, -1] > 0
    assert inside.float().mean().item() == pytest.approx(0.25, abs=0.03)
    at_start = episodes(moment)[~inside]
    assert at_start.float().mean().item() == pytest.approx(0.5, abs=0.05), "every episode alike"
    assert (rows(starts.draw(100, 0.0, np.random.default_rng(0))[0]) == 0).all()


def test_a_first_row_that_shows_a_success_leaves_nothing_inside(write_store, tmp_path):
    write_store(tmp_path / "store", splits=("train",), lengths=(5,), success_from=(0,))
    starts = StartStates([EpisodeStore.open(tmp_path / "store")], history=HISTORY, tasks=(TASK,))
    assert (rows(starts.draw(50, 1.0, np.random.default_rng(0))[0]) == 0).all()


def test_returns_count_down_to_the_first_success(starts):
    frames, states, values = starts.returns(0.5)
    # Episode 0: action 5 leads to row 6, the first success; episode 1 has none.
    assert values.tolist() == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5, 1.0] + [0.0] * 7
    assert frames[:, 0, 0, 0].tolist() == [*range(6), *range(7)]
    assert len(states) == 13


def test_a_success_by_the_last_action_is_worth_as_much_as_any_other(write_store, tmp_path):
    """No row shows it, for what the last action led to is not stored; only the episode's entry says so."""
    write_store(tmp_path / "store", splits=("train",) * 3, lengths=(4, 3, 5), success_from=(4, None, 2))
    store = EpisodeStore.open(tmp_path / "store")
    assert not store.success(0).any()
    assert store.episodes["success"].tolist() == [True, False, True]
    starts = StartStates([store], history=HISTORY, tasks=(TASK,))
    assert starts.first_success == [4, None, 2]
    frames, _, values = starts.returns(0.5)
    assert values.tolist() == [0.125, 0.25, 0.5, 1.0] + [0.0] * 3 + [0.5, 1.0]
    assert frames[:, 0, 0, 0].tolist() == [*range(4), *range(3), *range(2)]
    moment, left = starts.draw(500, 1.0, np.random.default_rng(0))
    last = rows(moment)[:, -1]
    assert set(last[episodes(moment) == 0].tolist()) == {1, 2, 3}, "its last row is not solved yet"
    assert set(left[(episodes(moment) == 0) & (last == 3)].tolist()) == {1}


def test_advancing_shifts_the_history_and_appends_what_the_action_led_to(make_counting, starts):
    before = starts.take(np.array([(0, 4), (1, 2)]))
    action = torch.tensor([[1.0, -1.0], [0.2, 5.0]])
    after = advance(make_counting(), before, action, generator())
    assert torch.equal(after.frames[:, :-1], before.frames[:, 1:])
    assert rows(after).tolist() == [[3, 4, 5], [1, 2, 3]]
    assert after.frames[:, -1, 1:, 0, 0].tolist() == [[255, 0], [153, 255]], "clipped to [-1, 1]"
    assert torch.equal(after.actions[:, :-1], before.actions[:, 1:])
    assert torch.equal(after.actions[:, -1], action.clamp(-1, 1))
    assert torch.equal(after.states, before.states), "not predicted: it stays"
    assert after.frames.dtype == torch.uint8


def test_the_model_is_given_the_actions_between_its_frames(make_counting, starts, monkeypatch):
    denoiser, contexts = make_counting(), []
    denoise = denoiser.denoise
    monkeypatch.setattr(denoiser, "denoise", lambda x, s, context: contexts.append(context) or denoise(x, s, context))
    before = starts.take(np.array([(0, 4)]))
    advance(denoiser, before, torch.tensor([[0.5, 0.5]]), generator())
    (context,) = contexts
    assert torch.equal(context.actions[0, :-1], before.actions[0])
    assert context.actions[0, -1].tolist() == [0.5, 0.5]
    assert context.frames.shape == (1, HISTORY, 3, 16, 16)
    assert context.states is None
    assert context.task is None


def test_predicted_states_move_on(make_counting, starts):
    before = starts.take(np.array([(0, 4)]))
    after = advance(make_counting(predict_state=True), before, torch.zeros(1, 2), generator())
    torch.testing.assert_close(after.states[:, -1], before.states[:, -1] + 1)
    assert torch.equal(after.states[:, :-1], before.states[:, 1:])


def test_a_replay_takes_the_actions_in_order(make_counting, starts):
    start = starts.take(np.array([(0, 0), (1, 3)]))
    actions = torch.tensor([[[-1.0, 1.0], [1.0, -1.0], [0.2, 0.2]], [[0.2, -1.0], [-1.0, 0.2], [1.0, 1.0]]])
    frames = replay(make_counting(), start, actions, generator())
    assert frames.shape == (2, 4, 3, 16, 16)
    assert torch.equal(frames[:, 0], start.frames[:, -1])
    assert frames[:, :, 0, 0, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert frames[0, 1:, 1:, 0, 0].tolist() == [[0, 255], [255, 0], [153, 153]]
    assert frames[1, 1:, 1:, 0, 0].tolist() == [[153, 0], [0, 153], [255, 255]]


def test_stores_without_states(write_store, tmp_path, make_counting):
    write_store(tmp_path / "store", state_size=0)
    starts = StartStates([EpisodeStore.open(tmp_path / "store")], history=HISTORY, tasks=(TASK,))
    after = advance(make_counting(), starts.starts(), torch.zeros(2, 2), generator())
    assert after.states.shape == (2, HISTORY, 0)
