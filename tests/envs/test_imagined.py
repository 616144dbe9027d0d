"""The frozen model as a vector environment: what belongs to which step, with a model that counts."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from world4rl.demos.store import EpisodeStore
from world4rl.envs.imagination import StartStates
from world4rl.envs.imagined import ImaginedVectorEnv
from world4rl.errors import DataError
from world4rl.models.classifier import SuccessClassifier

TASK = "button-press-topdown-v3"
HISTORY = 3


@pytest.fixture
def make_env(write_store, tmp_path, make_counting, success_at):
    def make(*, success: int = 1000, horizon: int = 5, num_envs: int = 4, mid: float = 0.0, seed: int = 0, **settings):
        if not (tmp_path / "store").exists():
            write_store(tmp_path / "store")
        starts = StartStates([EpisodeStore.open(tmp_path / "store")], history=HISTORY, tasks=(TASK,))
        return ImaginedVectorEnv(
            make_counting(**settings),
            success_at({TASK: success}),
            starts,
            num_envs=num_envs,
            horizon=horizon,
            mid_trajectory=mid,
            seed=seed,
        )

    return make


def counts(observation) -> list[int]:
    return observation["pixels"][:, -1, 0, 0, 0].tolist()


def test_an_action_leads_to_the_observation_that_step_returns(make_env):
    env = make_env()
    before, info = env.reset()
    assert info == {}
    assert counts(before) == [0, 0, 0, 0]
    kept = before["pixels"].clone()
    actions = torch.tensor([[-1.0, 1.0], [1.0, -1.0], [0.2, 1.0], [-3.0, 3.0]])
    after, reward, terminated, truncated, _ = env.step(actions)
    assert counts(after) == [1, 1, 1, 1]
    assert after["pixels"][:, -1, 1:, 0, 0].tolist() == [[0, 255], [255, 0], [153, 255], [0, 255]]
    assert torch.equal(after["pixels"][:, :-1], kept[:, 1:])
    assert reward.tolist() == [0, 0, 0, 0]
    assert not terminated.any()
    assert not truncated.any()
    assert torch.equal(before["pixels"], kept), "an observation that was handed out does not change"


def test_the_reward_comes_with_the_frame_that_shows_the_success(make_env):
    env = make_env(success=2)
    env.reset()
    actions = torch.zeros(4, 2)
    _, reward, terminated, _, info = env.step(actions)
    assert reward.tolist() == [0, 0, 0, 0]
    assert not {"final_obs", "_final_obs"} & set(info)
    observation, reward, terminated, truncated, info = env.step(actions)
    assert reward.tolist() == [1, 1, 1, 1]
    assert reward.dtype == torch.float32
    assert terminated.all()
    assert not truncated.any()
    assert counts(info["final_obs"]) == [2, 2, 2, 2]
    assert counts(observation) == [0, 0, 0, 0], "a new episode in the same step"
    _, reward, *_ = env.step(actions)
    assert reward.tolist() == [0, 0, 0, 0]


def test_each_row_is_judged_by_its_own_tasks_threshold(write_store, tmp_path, make_counting, success_at):
    tasks = ("faucet-open-v3", TASK)
    for index, task in enumerate(tasks):  # the episode's number in the first pixel's green tells the task
        splits = tuple("train" if episode == index else "test" for episode in range(2))
        write_store(tmp_path / task, task=task, splits=splits, lengths=(9, 9), success_from=(None, None))
    starts = StartStates([EpisodeStore.open(tmp_path / task) for task in tasks], history=HISTORY, tasks=tasks)
    needed = np.array([4, 2])
    env = ImaginedVectorEnv(
        make_counting(tasks=2),
        success_at(dict(zip(tasks, needed.tolist(), strict=True))),
        starts,
        num_envs=32,
        horizon=9,
    )
    observation, _ = env.reset()
    task = observation["pixels"][:, -1, 1, 0, 0].numpy().astype(int)
    changed = 0
    for _ in range(12):
        before = np.array(counts(observation))
        observation, reward, terminated, _, _ = env.step(torch.zeros(32, 2))
        expected = before + 1 >= needed[task]
        assert (terminated.numpy() == expected).all()
        assert (reward.numpy() == expected).all()
        fresh = observation["pixels"][:, -1, 1, 0, 0].numpy().astype(int)
        changed += int((fresh != task)[expected].sum())
        task[expected] = fresh[expected]
    assert set(task) == {0, 1}
    assert changed > 0, "a row's next episode may be another task's"


def test_a_classifier_that_lacks_a_task_is_refused_before_anything_is_imagined(write_store, tmp_path, make_counting):
    write_store(tmp_path / "store")
    starts = StartStates([EpisodeStore.open(tmp_path / "store")], history=HISTORY, tasks=(TASK,))
    classifier = SuccessClassifier("small-cnn", 16)
    classifier.thresholds = {"faucet-open-v3": 0.5}
    with pytest.raises(DataError, match=f"no threshold for '{TASK}'; it has faucet-open-v3"):
        ImaginedVectorEnv(make_counting(), classifier, starts, num_envs=2, horizon=5)


def test_the_horizon_truncates(make_env):
    env = make_env(horizon=3)
    env.reset()
    for step in range(1, 8):
        observation, reward, terminated, truncated, info = env.step(torch.zeros(4, 2))
        assert reward.sum() == 0
        assert not terminated.any()
        assert truncated.all() == (step % 3 == 0)
        assert ("final_obs" in info) == (step % 3 == 0)
        assert counts(observation) == [step % 3] * 4


def test_a_success_at_the_horizon_terminates(make_env):
    env = make_env(success=3, horizon=3)
    env.reset()
    for _ in range(3):
        _, reward, terminated, truncated, _ = env.step(torch.zeros(4, 2))
    assert terminated.all()
    assert not truncated.any()
    assert reward.tolist() == [1, 1, 1, 1]


def left(observation) -> np.ndarray:
    """Actions that the real episodes, of 9 and 7 rows, had left where rows begin."""
    last = observation["pixels"][:, -1, :2, 0, 0].numpy().astype(int)
    return np.array([9, 7])[last[:, 1]] - last[:, 0]


def test_a_start_inside_an_episode_leaves_no_more_time_than_there_was(make_env):
    env = make_env(horizon=8, num_envs=200, mid=1.0)
    observation, _ = env.reset()
    expected = np.minimum(left(observation), 8)
    assert len(set(expected.tolist())) > 3
    ends = np.zeros(200, int)
    for step in range(1, 9):
        _, _, _, truncated, _ = env.step(torch.zeros(200, 2))
        ends[(ends == 0) & truncated.numpy()] = step
    assert (ends == expected).all()


def test_only_finished_rows_begin_anew(make_env):
    env = make_env(success=6, horizon=4, num_envs=64, mid=0.5)
    observation, _ = env.reset()
    steps, limit = np.zeros(64, int), np.minimum(left(observation), 4)
    for _ in range(12):
        before = np.array(counts(observation))
        observation, _, terminated, truncated, info = env.step(torch.zeros(64, 2))
        steps += 1
        final = np.array(counts(info.get("final_obs", observation)))
        assert (final == before + 1).all()
        assert (terminated.numpy() == (final >= 6)).all()
        assert (truncated.numpy() == ((steps == limit) & (final < 6))).all()
        finished = (terminated | truncated).numpy()
        now = np.array(counts(observation))
        assert (now[~finished] == final[~finished]).all()
        assert (now[finished] <= 6).all()
        assert ("_final_obs" in info) == ("final_obs" in info) == finished.any()
        if "final_obs" in info:
            assert info["_final_obs"].dtype == torch.bool
            assert (info["_final_obs"].numpy() == finished).all()
            pixels = observation["pixels"][~torch.from_numpy(finished)]
            assert torch.equal(pixels, info["final_obs"]["pixels"][~torch.from_numpy(finished)])
        steps[finished] = 0
        limit[finished] = np.minimum(left({"pixels": observation["pixels"][torch.from_numpy(finished)]}), 4)


def test_imagination_never_starts_solved(make_env):
    env = make_env(num_envs=500, mid=1.0)
    observation, _ = env.reset()
    last = observation["pixels"][:, -1, :2, 0, 0]
    solved_from = torch.tensor([6, 7])  # the first solved row of episode 0; episode 1 ends unsolved
    assert (last[:, 0] < solved_from[last[:, 1].long()]).all()
    assert last[:, 0].min() == 1


def test_the_seed_repeats_everything_but_only_where_it_is_given(make_env):
    def play(env, seed):
        observation, _ = env.reset(seed=seed)
        frames = [observation["pixels"]]
        for _ in range(6):
            observation, *_ = env.step(torch.zeros(8, 2))
            frames.append(observation["pixels"])
        return torch.stack(frames)

    env = make_env(num_envs=8, mid=0.5, horizon=3)
    first = play(env, 7)
    assert not torch.equal(play(env, None), first)
    assert torch.equal(play(env, 7), first)
    assert torch.equal(play(make_env(num_envs=8, mid=0.5, horizon=3, seed=7), None), first)


def test_its_generators_are_all_that_it_draws_from(make_env):
    env, other = make_env(num_envs=8, mid=0.5), make_env(num_envs=8, mid=0.5, seed=9)
    assert set(env.generators) == {"starts", "sampler"}
    env.reset()
    other.generators["starts"].bit_generator.state = env.generators["starts"].bit_generator.state
    other.generators["sampler"].set_state(env.generators["sampler"].get_state())
    torch.manual_seed(0)
    first = env.reset()[0]["pixels"]
    torch.manual_seed(1)
    assert torch.equal(other.reset()[0]["pixels"], first)


def test_observations_lie_in_the_spaces(make_env):
    env = make_env(predict_state=True)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    for observation in (env.reset()[0], env.step(torch.zeros(4, 2))[0]):
        arrays = {name: value.numpy() for name, value in observation.items()}
        assert env.observation_space.contains(arrays)
        assert env.single_observation_space.contains({name: value[0] for name, value in arrays.items()})
    assert env.single_action_space.shape == (2,)
    assert env.action_space.shape == (4, 2)


def test_a_predicted_state_is_observed_and_reset(make_env):
    env = make_env(predict_state=True, horizon=2)
    first = env.reset()[0]["state"]
    second = env.step(torch.zeros(4, 2))[0]["state"]
    torch.testing.assert_close(second, first + 1)
    observation, *_, info = env.step(torch.zeros(4, 2))
    torch.testing.assert_close(info["final_obs"]["state"], first + 2)
    real = env.reset(seed=3)[0]["state"]
    assert not torch.allclose(observation["state"], info["final_obs"]["state"])
    assert real.shape == (4, 3)
