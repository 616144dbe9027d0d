from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from world4rl.demos import checks
from world4rl.demos.checks import Finding


def names(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]


def moving(make_episode: Any, length: int = 20) -> tuple[np.ndarray, np.ndarray]:
    episode = make_episode(5, length)
    return episode.frames.copy(), episode.states.copy()


@given(arrays(np.float32, (9, 3), elements=st.floats(-5, 5, width=32)), st.data())
def test_not_finite(values: np.ndarray, data: Any) -> None:
    assert checks.check_finite(4, "action", values) == []
    row, column = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 2))
    values[row, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    (finding,) = checks.check_finite(4, "action", values)
    assert (finding.episode, finding.check, finding.evidence) == (4, "not_finite", f"row {row}")
    assert "action" in finding.reason


@given(arrays(np.float32, (9, 3), elements=st.floats(-1, 1, width=32)), st.data())
def test_out_of_bounds(values: np.ndarray, data: Any) -> None:
    assert checks.check_bounds(0, "action", values, -1, 1) == []
    row = data.draw(st.integers(0, 8))
    values[row, 1] = data.draw(st.sampled_from([-3.5, 1.5]))
    (finding,) = checks.check_bounds(0, "action", values, -1, 1)
    assert finding.evidence == f"row {row}, up to {values[row, 1]:g}"
    assert names(checks.check_bounds(0, "action", np.full((2, 1), np.nan), -1, 1)) == []


def test_row_counts() -> None:
    assert checks.check_row_count(1, 10, (30, 40), 10) == []
    assert "promises 11 frames, the data files hold 10" in checks.check_row_count(1, 11, (30, 41), 10)[0].reason
    assert "30 to 45" in checks.check_row_count(1, 10, (30, 45), 10)[0].reason


def test_tasks() -> None:
    known = {0: "push", 1: "pull"}
    assert checks.check_tasks(0, np.array([0, 1]), known, None) == []
    assert checks.check_tasks(0, np.array([1]), known, ["pull"]) == []
    (unknown,) = checks.check_tasks(0, np.array([0, 7]), known, None)
    assert (unknown.check, "[7]" in unknown.reason) == ("unknown_task", True)
    (other,) = checks.check_tasks(0, np.array([0]), known, ["pull"])
    assert (other.check, "'push'" in other.reason, "pull" in other.evidence) == ("unknown_task", True, True)


def test_shapes() -> None:
    assert checks.check_shapes(0, "action", np.zeros(4, bool), 3) == []
    (finding,) = checks.check_shapes(0, "action", np.array([False, True, True]), 3)
    assert (finding.check, finding.evidence) == ("wrong_shape", "rows 1, 2")


def test_frame_counts() -> None:
    assert checks.check_frame_count(0, "front", np.zeros(5, bool), "file") == []
    (finding,) = checks.check_frame_count(0, "front", np.arange(5) == 3, "file-000.mp4")
    assert "4 of 5 frames" in finding.reason
    assert finding.evidence == "row 3 of file-000.mp4"


def test_columns() -> None:
    assert checks.check_columns(["a", "b"], ["b", "a"], "f") == []
    assert names(checks.check_columns(["a", "b"], ["b", "c"], "f")) == ["dropped_column", "extra_column"]


def test_totals() -> None:
    info = {"total_episodes": 3, "total_frames": 30}
    assert checks.check_totals(info, 3, 30) == []
    assert names(checks.check_totals(info, 2, 29)) == ["total_episodes", "total_frames"]


def test_duplicates() -> None:
    assert checks.check_duplicate(3, "abc", {"abd": "episode 1"}) == []
    assert "episode 1" in checks.check_duplicate(3, "abd", {"abd": "episode 1"})[0].reason


@settings(max_examples=20)
@given(st.integers(0, 19), st.integers(0, 10))
def test_a_black_frame_anywhere(make_episode: Any, row: int, level: int) -> None:
    frames, _ = moving(make_episode)
    assert checks.check_blank(0, "front", frames) == []
    frames[row] = level
    (finding,) = checks.check_blank(0, "front", frames)
    assert (finding.check, finding.evidence) == ("black_camera", f"row {row}")


@given(st.tuples(st.integers(20, 250), st.integers(20, 250), st.integers(20, 250)))
@settings(max_examples=20)
def test_a_frame_of_one_colour(make_episode: Any, colour: tuple[int, int, int]) -> None:
    frames, _ = moving(make_episode)
    frames[7] = colour
    assert names(checks.check_blank(0, "front", frames)) == ["blank_camera"]


def test_a_dark_but_living_camera_passes() -> None:
    frames = np.random.default_rng(0).integers(0, 30, (5, 24, 24, 3)).astype(np.uint8)
    assert checks.check_blank(0, "front", frames) == []


def test_a_frozen_camera(make_episode: Any) -> None:
    frames, states = moving(make_episode)
    assert checks.check_frozen(0, "front", frames, states) == []
    frames[3:] = frames[3]
    (finding,) = checks.check_frozen(0, "front", frames, states)
    assert (finding.check, finding.evidence) == ("frozen_camera", "rows 3 to 19")


def test_a_camera_that_a_codec_keeps_almost_still(make_episode: Any) -> None:
    frames, states = moving(make_episode)
    noise = np.random.default_rng(0).integers(0, 2, frames.shape).astype(np.uint8)
    frames = np.broadcast_to(frames[:1], frames.shape) // 2 + noise
    assert names(checks.check_frozen(0, "front", frames, states)) == ["frozen_camera"]


def test_a_robot_at_rest_is_no_frozen_camera(make_episode: Any) -> None:
    frames, states = moving(make_episode)
    frames[8:], states[8:] = frames[8], states[8]
    assert checks.check_frozen(0, "front", frames, states) == []


def test_a_robot_that_trembles_is_no_frozen_camera(make_episode: Any) -> None:
    frames, states = moving(make_episode)
    frames[:], states[:] = frames[0], states[0] + 1e-3 * np.random.default_rng(0).normal(size=states.shape)
    assert checks.check_frozen(0, "front", frames, states) == []


def test_without_states_only_a_wholly_frozen_episode_counts(make_episode: Any) -> None:
    frames, _ = moving(make_episode)
    frames[8:] = frames[8]
    assert checks.check_frozen(0, "front", frames, None) == []
    frames[:] = frames[8]
    assert names(checks.check_frozen(0, "front", frames, None)) == ["frozen_camera"]


def test_slow_motion_is_motion() -> None:
    frames = np.broadcast_to(np.arange(60, 80, dtype=np.uint8)[:, None, None, None], (20, 8, 8, 3))
    assert checks.check_frozen(0, "front", frames, np.arange(20.0)[:, None]) == []


def test_one_quarantine_entry_an_episode() -> None:
    findings = [
        Finding(7, "not_finite", "action has NaN", "row 1"),
        Finding(2, "duplicate", "same as 1"),
        Finding(7, "not_finite", "state has NaN", "row 1"),
        Finding(7, "row_count", "too short"),
        Finding(None, "total_frames", "of the whole dataset"),
    ]
    assert checks.quarantine_list(findings) == [
        {"episode": 2, "check": "duplicate", "reason": "same as 1", "evidence": ""},
        {
            "episode": 7,
            "check": "not_finite, row_count",
            "reason": "action has NaN; state has NaN; too short",
            "evidence": "row 1",
        },
    ]


@pytest.mark.parametrize(
    ("rows", "text"), [([3], "row 3"), ([1, 2], "rows 1, 2"), (range(9), "rows 0, 1, 2, 3, 4 and 4 more")]
)
def test_rows_in_words(rows: Any, text: str) -> None:
    assert checks.rows_text(np.array(list(rows))) == text


def test_row_ranges() -> None:
    assert checks.check_row_range(3, np.arange(36, 48), (36, 48)) == []
    index = np.arange(36, 48)
    index[4] = 5
    (finding,) = checks.check_row_range(3, index, (36, 48))
    assert (finding.check, finding.evidence) == ("row_range", "row 4; the first is numbered 5")
    assert "from 36 to 47" in finding.reason


def test_too_short() -> None:
    assert checks.check_length(0, 2) == []
    assert names(checks.check_length(0, 1)) == ["too_short"]


@given(arrays(np.float32, (9, 3), elements=st.floats(-1, 1, width=32)), st.integers(0, 8))
def test_constant_actions(actions: np.ndarray, row: int) -> None:
    actions[:] = actions[0]
    (finding,) = checks.check_constant(0, actions)
    assert (finding.check, "all 9 actions" in finding.reason) == ("constant_actions", True)
    assert checks.check_constant(0, actions[:4]) == [], "too few to tell"
    actions[row, 1] += 0.5
    assert checks.check_constant(0, actions) == []


def test_rows_after_the_end() -> None:
    assert checks.check_end(0, np.array([False, False, True])) == []
    assert checks.check_end(0, np.zeros(3, bool)) == []
    (finding,) = checks.check_end(0, np.array([False, True, True]))
    assert (finding.check, finding.evidence) == ("after_end", "row 1")


@pytest.mark.parametrize(("shown", "said"), [(None, True), (True, None), (True, True), (False, False)])
def test_labels_that_agree(shown: bool | None, said: bool | None) -> None:
    assert checks.check_success(0, shown, said) == []


@pytest.mark.parametrize("shown", [True, False])
def test_labels_that_contradict_each_other(shown: bool) -> None:
    (finding,) = checks.check_success(0, shown, not shown)
    assert finding.check == "success_label"
    assert f"the success column a {'success' if shown else 'failure'}" in finding.reason


def test_one_task_an_episode() -> None:
    known = {0: "push", 1: "pull", 2: " "}
    assert checks.check_tasks(0, np.array([0, 1]), known, None) == []
    assert names(checks.check_tasks(0, np.array([0, 1]), known, None, one=True)) == ["several_tasks"]
    assert names(checks.check_tasks(0, np.array([2]), known, None, one=True)) == ["unknown_task"]
    assert checks.check_tasks(0, np.array([1, 1]), known, None, one=True) == []
