"""Wrong parameters end in one clear error before anything runs; right ones survive writing and reading."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from world4rl.config import PROFILES, Params, dump_params, load_params, load_profile, parse_params
from world4rl.envs.tasks import METAWORLD_TASKS
from world4rl.errors import ConfigError

ROOT = Path(__file__).parents[1]


def values(profile: str = "demo") -> dict[str, Any]:
    return yaml.safe_load(dump_params(load_profile(profile)))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_written_out_reads_back_equal(profile):
    params = load_profile(profile)
    assert parse_params(values(profile), where="test") == params
    assert params.profile == profile


def test_the_file_in_the_repository_is_the_demo_profile():
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == dump_params(load_profile("demo")), "run `make params`"


def test_the_written_file_holds_every_value():
    def compare(model: BaseModel, written: dict[str, Any], where: str) -> None:
        assert set(written) == set(type(model).model_fields), where
        for name in type(model).model_fields:
            inner = getattr(model, name)
            if isinstance(inner, BaseModel):
                compare(inner, written[name], f"{where}.{name}")

    compare(load_profile("demo"), values(), "params")


def test_the_paper_profile_is_the_papers_recipe():
    params = load_profile("paper")
    assert len(params.tasks) == 6
    assert {task.demonstrations for task in params.task_parameters.values()} == {50}
    assert (params.rollouts.policy, params.rollouts.random, params.simulation.episode_steps) == (150, 30, 50)
    assert (params.world_model.history, params.world_model.action_bins) == (4, 21)
    assert params.classifier.backbone == "resnet18"
    assert params.refinement.log_std_range[1] == 0


def change(path: str, value: Any) -> dict[str, Any]:
    changed = values()
    *sections, name = path.split(".")
    inner = changed
    for section in sections:
        inner = inner[section]
    inner[name] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("world_model.batchsize", 32, "world_model.batchsize: unknown key"),
        ("sede", 1, "sede: unknown key"),
        ("task_parameters.button-press-topdown-v3.demos", 4, "button-press-topdown-v3.demos: unknown key"),
        ("simulation.image_size", "48px", "simulation.image_size"),
        ("simulation.image_size", 4800, "less than or equal to 480"),
        ("simulation.camera", "corner9", "corner2"),
        ("simulation.camera", "gripperPOV", "moves with the hand"),
        ("simulation.field_of_view", 180.0, "less than or equal to 120"),
        ("rollouts.validation", 10, "less than or equal to 1"),
        ("behaviour_cloning.learning_rate", 3, "less than 1"),
        ("refinement.log_std_range", [-1.0, 0.5], "less than or equal to 0"),
        ("refinement.log_std_range", [-0.5, -1.0], "low <= high"),
        ("evaluation.confidence", 95, "less than 1"),
        ("gates.refined_margin", -1, "greater than or equal to 0"),
        ("seed", -1, "seed"),
        ("world_model.training_sigma_mean", float("nan"), "finite"),
        ("tasks", [], "at least one task"),
        ("tasks", ["button-press-topdown-v3", "button-press-topdown-v3"], "each once"),
        ("tasks", ["button-press-topdown-v3", "handle-press-v9"], "unknown task 'handle-press-v9'"),
        ("tasks", ["button-press-topdown-v3"], "stand in only one of the two"),
        ("simulation.image_size", 50, "multiple of world_model.fold"),
        ("store.shard_frames", 4095, "multiple of store.chunk_frames"),
        ("world_model.attention_levels", [False], "same length"),
        ("world_model.training_sigma_range", [20.0, 0.002], "low < high"),
        ("evaluation.open_loop_horizons", [5, 500], "shorter than simulation.episode_steps"),
        ("refinement.horizon", 500, "must not exceed"),
    ],
)
def test_a_wrong_value_is_named_with_the_file(tmp_path, path, value, expected):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(change(path, value)), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_params(file)
    assert expected in str(caught.value)
    assert caught.value.where == str(file)
    assert caught.value.remedy


def test_state_in_the_policy_needs_it_in_the_world_model():
    changed = change("behaviour_cloning.state", True)
    changed["world_model"]["predict_state"] = False
    with pytest.raises(ConfigError, match="predict_state"):
        parse_params(changed, where="test")
    changed["world_model"]["predict_state"] = True
    assert parse_params(changed, where="test").behaviour_cloning.state


def test_all_mistakes_are_named_at_once():
    changed = change("world_model.batchsize", 32)
    changed["seed"] = "zero"
    del changed["tasks"]
    with pytest.raises(ConfigError) as caught:
        parse_params(changed, where="test")
    for name in ("world_model.batchsize", "seed", "tasks"):
        assert name in str(caught.value)


@pytest.mark.parametrize("text", ["tasks: [a", "- 1\n- 2\n", "", "42\n", "tasks: !!python/object/apply:os.getcwd []\n"])
def test_what_is_no_parameter_file_is_one_error(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_params(file)
    assert caught.value.where == str(file)


def test_a_missing_file_and_an_unknown_profile_say_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="no parameter file"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="ci, demo, paper"):
        load_profile("dmeo")


def leaves(inner: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(inner, dict):
        return [leaf for name, value in inner.items() for leaf in leaves(value, (*path, name))]
    return [path]


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(), st.text(max_size=5), st.lists(st.integers())
)


@given(path=st.sampled_from(leaves(values())), value=junk)
def test_any_value_anywhere_is_accepted_and_kept_or_refused_clearly(path, value):
    changed = change(".".join(path), value) if not any("." in name for name in path) else values()
    try:
        params = parse_params(changed, where="test")
    except ConfigError:  # and no other error
        return
    assert parse_params(yaml.safe_load(dump_params(params)), where="test") == params


@given(
    st.sampled_from([p for p in leaves(values()) if p[0] not in ("tasks", "task_parameters")]),
    st.text("abcxyz_", min_size=1),
)
def test_any_misspelt_key_is_unknown(path, extra):
    changed = values()
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    misspelt = path[-1] + extra
    if misspelt in inner:
        return
    inner[misspelt] = inner.pop(path[-1])
    with pytest.raises(ConfigError, match="unknown key"):
        parse_params(changed, where="test")


@given(image_size=st.integers(16, 480), fold=st.integers(1, 6), levels=st.integers(1, 5), repeat=st.integers(1, 4))
def test_the_image_size_rule_is_exact(image_size, fold, levels, repeat):
    changed = change("simulation.image_size", image_size)
    changed["simulation"]["action_repeat"] = repeat
    changed["world_model"] |= {"fold": fold, "channels": [32] * levels, "attention_levels": [False] * levels}
    if image_size % (fold * 2 ** (levels - 1)) == 0:
        parse_params(changed, where="test")
    else:
        with pytest.raises(ConfigError, match="must be a multiple of"):
            parse_params(changed, where="test")


@pytest.mark.parametrize("task", METAWORLD_TASKS)
def test_any_task_by_name(task):
    params = parse_params({"tasks": [task], "task_parameters": {task: {}}}, where="test")
    assert params.tasks == (task,)


def test_parameters_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        load_profile("ci").seed = 3
    assert isinstance(load_profile("ci"), Params)
