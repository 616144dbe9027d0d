"""Meta-World as an environment: seeds, action repeat, episode length, workers, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from world4rl.config import Simulation
from world4rl.envs.episodes import Episode, disturbed, expert_controller, random_controller, roll_out
from world4rl.envs.metaworld import MetaWorldEnv
from world4rl.envs.tasks import METAWORLD_TASKS
from world4rl.errors import ConfigError

TASK = "button-press-topdown-v3"
SMALL = Simulation(image_size=24, episode_steps=4, workers=2)


@pytest.fixture(scope="module")
def env():
    env = MetaWorldEnv(TASK, SMALL, expert=True)
    yield env
    env.close()


def test_the_seed_alone_decides_an_episode(env):
    def play(seed: int) -> tuple[np.ndarray, np.ndarray]:
        frames, states = [], []
        observation, _ = env.reset(seed=seed)
        for step in range(4):
            frames.append(observation["pixels"])
            states.append(observation["state"])
            observation, *_ = env.step(np.full(4, 0.3 * step - 0.5))
        return np.stack(frames), np.stack(states)

    frames, states = play(3)
    other, _ = play(4)
    assert not np.array_equal(frames[0], other[0]), "another goal"
    again, again_states = play(3)
    assert np.array_equal(again, frames)
    assert np.array_equal(again_states, states)


def test_the_first_frame_already_shows_this_episodes_goal():
    """Meta-World moves the window after its last forward pass; undrawn, the first frame shows the last episode's."""
    env = MetaWorldEnv("window-close-v3", SMALL)
    env.reset(seed=1)
    for seed in (2, 3):
        first = env.reset(seed=seed)[0]
        second = env.step(np.zeros(4))[0]
        changed = np.abs(first["pixels"].astype(int) - second["pixels"]).max(-1) > 40
        assert changed.mean() < 0.03, "the arm settles, the window stays"
        assert np.allclose(first["state"], second["state"], atol=0.01)
    env.close()


def test_an_episode_has_a_fixed_length_and_never_ends_by_itself(env):
    env.reset(seed=0)
    ends = [env.step(np.zeros(4))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_an_action_is_held_for_the_repeat(env):
    single = MetaWorldEnv(TASK, SMALL.model_copy(update={"action_repeat": 1}))
    env.reset(seed=5)
    single.reset(seed=5)
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 4)):
        observation, reward, *_ = env.step(action)
        first = single.step(action)[1]
        fine, second, *_ = single.step(action)
        assert np.array_equal(observation["pixels"], fine["pixels"])
        assert np.array_equal(observation["state"], fine["state"])
        assert reward == pytest.approx((first + second) / 2)
    single.close()


def test_actions_are_clipped(env):
    outcomes = []
    for action in (np.ones(4), np.full(4, 17.0)):
        env.reset(seed=1)
        outcomes.append(env.step(action)[0]["state"])
    assert np.array_equal(*outcomes)


@pytest.mark.filterwarnings("ignore:.*A Box observation space")
def test_gymnasiums_own_checks(env):
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    assert env.render().shape == (24, 24, 3)


def test_the_picture_shows_something_and_moves(env):
    before = env.reset(seed=0)[0]["pixels"]
    for _ in range(4):
        after, *_ = env.step(np.array([1.0, 1.0, -1.0, 0.0]))
    assert before.std() > 20
    assert (before != after["pixels"]).mean() > 0.01


def test_stepping_before_a_reset_is_refused():
    with pytest.raises(ResetNeeded):
        MetaWorldEnv(TASK, SMALL).step(np.zeros(4))


def test_an_unknown_task_is_one_clear_error():
    with pytest.raises(ConfigError, match="button-press-topdown-v3") as caught:
        MetaWorldEnv("button-press-topdwn-v3", SMALL)
    assert "'button-press-topdwn-v3'" in str(caught.value)


def test_each_task_has_an_expert():
    from world4rl.envs.simulator import scripted_expert

    for task in METAWORLD_TASKS:
        assert callable(scripted_expert(task).get_action)


def test_what_was_simulated_is_described():
    from world4rl.envs.simulator import describe_simulation

    described = describe_simulation(SMALL, TASK)
    assert described["image_size"] == 24
    assert described["control_hz"] / described["action_repeat"] == 40
    assert described["camera_position"] == [0.75, 0.075, 0.7]
    assert described["flipped"], "corner2 hangs upside down"
    assert "workers" not in described, "their number changes nothing"
    aimed = describe_simulation(SMALL.model_copy(update={"camera_target": (0.0, 0.7, 0.1)}), TASK)
    assert aimed["camera_target"] == [0.0, 0.7, 0.1]
    assert not aimed["flipped"]


def test_a_camera_stands_upright_and_looks_at_its_target():
    import mujoco

    from world4rl.envs.simulator import look_at

    position, target = np.array([0.75, 0.075, 0.7]), np.array([0.0, 0.68, 0.13])
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, look_at(position, target))
    right, up, backwards = rotation.reshape(3, 3).T
    assert np.allclose(backwards, (position - target) / np.linalg.norm(position - target))
    assert right[2] == pytest.approx(0.0), "the horizon is level"
    assert up[2] > 0
    with pytest.raises(ConfigError, match="which way is up"):
        look_at((0.0, 0.0, 1.0), (0.0, 0.0, 0.0))


def test_a_field_of_view_cuts_out_the_middle():
    """Half the picture's width at the same distance: the middle of the wide picture, pixel by pixel."""

    def first_frame(degrees: float, pixels: int) -> np.ndarray:
        update = {"camera_target": (0.0, 0.68, 0.13), "field_of_view": degrees, "image_size": pixels}
        env = MetaWorldEnv(TASK, SMALL.model_copy(update=update))
        frame = env.reset(seed=0)[0]["pixels"].astype(int)
        env.close()
        return frame

    wide = 60.0
    narrow = 2 * np.degrees(np.arctan(np.tan(np.radians(wide / 2)) / 2))
    middle = first_frame(wide, 96)[24:72, 24:72]
    assert np.abs(first_frame(narrow, 48) - middle).mean() < 1.0
    assert np.abs(first_frame(wide, 48) - middle).mean() > 10.0


@pytest.mark.parametrize(
    "view",
    [
        {"camera_target": (0.02, 0.68, 0.15), "field_of_view": 40.0},
        {"camera": "corner2"},
        {"camera": "gripperPOV"},
        {"camera": "topview", "field_of_view": 20.0},
    ],
)
@pytest.mark.parametrize("task", [TASK, "drawer-open-v3"])
def test_what_lies_outside_the_view_is_not_drawn_and_no_pixel_changes(task: str, view: dict[str, Any]):
    from world4rl.envs.simulator import Culling, Simulator

    simulator = Simulator(task, Simulation(image_size=64, **view))
    vector = simulator.reset(3)
    culling, model, hidden = simulator._culling, simulator._env.model, 0
    for _ in range(6):
        culled = simulator.render()
        hidden += int((model.geom_group == Culling.HIDDEN_GROUP).sum())
        model.geom_group[:] = culling._groups
        simulator._renderer.update_scene(simulator._env.data, camera=simulator._camera)
        whole = simulator._renderer.render()
        assert np.array_equal(culled, whole[::-1, ::-1] if simulator._flip else whole)
        vector, _, _ = simulator.step(simulator.expert_action(vector))
    assert (hidden > 0) == (view != {"camera": "corner2"}), "as shipped, corner2 sees everything"
    simulator.close()


def equal(one: Episode, other: Episode) -> bool:
    names = ("frames", "states", "actions", "rewards", "successes")
    return one.seed == other.seed and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def test_the_number_of_workers_changes_no_episode_and_rows_hold_what_was_seen_before_the_action(env):
    seeds = [11, 12, 13]
    runs = []
    for workers in (1, 2):
        simulation = SMALL.model_copy(update={"workers": workers})
        runs.append(list(roll_out(TASK, simulation, seeds, expert_controller(0.5, 7), stop_at_success=False)))
    assert [episode.seed for episode in runs[0]] == seeds
    assert all(equal(one, other) for one, other in zip(*runs, strict=True))
    assert not np.array_equal(runs[0][0].actions, runs[0][1].actions)
    episode = runs[0][2]
    assert len(episode.actions) == 4
    observation, _ = env.reset(seed=episode.seed)
    for t, action in enumerate(episode.actions):
        assert np.array_equal(episode.frames[t], observation["pixels"])
        assert np.array_equal(episode.states[t], observation["state"])
        observation, reward, _, _, info = env.step(action)
        assert episode.rewards[t] == pytest.approx(reward)
        assert episode.successes[t] == info["success"]
    assert np.array_equal(episode.outcome, observation["pixels"])


def test_the_expert_solves_the_task_and_the_episode_ends_there():
    simulation = Simulation(image_size=24, episode_steps=60, workers=1, action_repeat=3)
    (episode,) = roll_out(TASK, simulation, [0], expert_controller(0.0, 0), stop_at_success=True)
    assert episode.success
    assert episode.steps_to_success == len(episode.actions) < 60
    assert episode.successes.tolist() == [False] * (len(episode.actions) - 1) + [True]
    assert np.abs(episode.actions).max() <= 1
    lengths = {len(value) for value in (episode.frames, episode.states, episode.rewards, episode.successes)}
    assert lengths == {len(episode.actions)}


def test_no_seeds_start_no_simulator():
    assert list(roll_out(TASK, SMALL, [], random_controller(0), stop_at_success=False)) == []


@pytest.mark.parametrize("make", [lambda seed: random_controller(seed), lambda seed: expert_controller(0.4, seed)])
def test_drawn_actions_depend_on_episode_and_step_alone(make):
    def act(seed: int, episodes: list[int], steps: list[int]) -> np.ndarray:
        count = len(episodes)
        nothing = np.zeros((count, 24, 24, 3), np.uint8), np.zeros((count, 4), np.float32)
        return make(seed)(*nothing, np.zeros((count, 4), np.float32), np.array(episodes), np.array(steps))

    together = act(0, [0, 1, 5], [3, 3, 9])
    assert together.dtype == np.float32
    assert np.abs(together).max() <= 1
    assert np.array_equal(act(0, [5], [9]), together[2:])
    rows = [*together, act(1, [0], [3])[0], act(0, [0], [4])[0]]
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_a_held_random_action_changes_every_few_steps():
    def act(step: int) -> bytes:
        nothing = np.zeros((1, 24, 24, 3), np.uint8), np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
        return random_controller(0, hold=3)(*nothing, np.array([7]), np.array([step])).tobytes()

    actions = [act(step) for step in range(9)]
    assert [actions.index(action) for action in actions] == [0, 0, 0, 3, 3, 3, 6, 6, 6]


def test_a_disturbance_is_held_and_has_its_size():
    def still(frames, states, expert, episodes, steps):
        return np.full((len(episodes), 4), 0.1, np.float32)

    act = disturbed(still, largest=0.2, hold=4, seed=0)
    count = 500
    nothing = np.zeros((count, 24, 24, 3), np.uint8), np.zeros((count, 4), np.float32), np.zeros((count, 4), np.float32)
    rows = [act(*nothing, np.arange(count), np.full(count, step)) for step in range(8)]
    assert all(np.array_equal(rows[0], row) for row in rows[1:4])
    assert all(np.array_equal(rows[4], row) for row in rows[5:])
    assert not np.array_equal(rows[0], rows[4])
    assert rows[0].mean() == pytest.approx(0.1, abs=0.02)
    assert rows[0].std() == pytest.approx(0.2 / 3**0.5, abs=0.02), "of a strength that is uniform in [0, 0.2]"
    strong = disturbed(still, largest=50.0, hold=1, seed=0)
    assert np.abs(strong(*nothing, np.arange(count), np.zeros(count))).max() == 1


def test_a_disturbance_is_as_strong_all_through_an_episode_and_differs_between_episodes():
    def still(frames, states, expert, episodes, steps):
        return np.zeros((len(episodes), 4), np.float32)

    act = disturbed(still, largest=0.2, hold=1, seed=0)
    none = np.zeros((400, 24, 24, 3), np.uint8), np.zeros((400, 4), np.float32), np.zeros((400, 4), np.float32)
    sizes = np.array([act(*none, np.full(400, episode), np.arange(400)).std() for episode in range(40)])
    halves = np.array([act(*none, np.full(400, episode), 1000 + np.arange(400)).std() for episode in range(40)])
    assert np.allclose(sizes, halves, rtol=0.15)
    assert sizes.max() <= 0.21
    assert sizes.min() < 0.05
    assert sizes.max() > 0.15


def test_the_strength_of_a_disturbance_says_nothing_about_its_direction():
    """The size of the first noise, over its episode's strength, is that of any Gaussian, for weak and strong alike."""

    def still(frames, states, expert, episodes, steps):
        return np.zeros((len(episodes), 4), np.float32)

    count = 3000
    none = np.zeros((count, 2, 2, 3), np.uint8), np.zeros((count, 4), np.float32), np.zeros((count, 4), np.float32)
    act = disturbed(still, largest=1e-3, hold=1, seed=7)  # so small that nothing is clipped
    noise = np.stack([act(*none, np.arange(count), np.full(count, step)) for step in range(24)])
    strength = noise.std((0, 2))
    first = np.abs(noise[0]) / strength[:, None]
    for dimension in range(4):
        assert abs(np.corrcoef(strength, first[:, dimension])[0, 1]) < 0.06  # three standard errors


def test_the_noiseless_expert_is_the_expert():
    expert = np.array([[0.1, -0.2, 0.3, 1.0]], np.float32)
    act = expert_controller(0.0, 0)
    zeros = np.zeros(1, int)
    assert np.array_equal(act(np.zeros((1, 8, 8, 3)), np.zeros((1, 4)), expert, zeros, zeros), expert)
