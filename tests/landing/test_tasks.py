"""Adding a task to the parameter file: it stays as it was written, and is valid or untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.landing.conftest import Site
from world4rl.cli import app
from world4rl.config import dump_params, load_params, load_profile
from world4rl.editing import NewTask, add_task, new_task
from world4rl.errors import ConfigError

BLOCK = """\
# our own file
profile: lab  # not one of the three
tasks:  # in the order of their age
  - button-press-v3   # the first one
task_parameters:
  button-press-v3:
    demonstrations: 7  # as many as we had
    expert_noise: 0.0
  # here ends the list
seed: 3
"""
FLOW = "seed: 3\ntask_parameters: {button-press-v3: {demonstrations: 7}}\ntasks: [button-press-v3]\n"


@pytest.fixture(params=["demo", "block", "flow", "no line break at the end"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    texts = {"demo": dump_params(load_profile("demo")), "block": BLOCK, "flow": FLOW}
    (tmp_path / "params.yaml").write_text(texts.get(request.param, FLOW.rstrip()))
    return tmp_path / "params.yaml"


def test_a_task_is_added_and_all_else_stays(file: Path) -> None:
    before, text = load_params(file), file.read_text()
    add_task(file, NewTask("soccer-v3"))
    add_task(file, NewTask("fold-towel", "Fold the 'blue' towel: twice"))
    after = load_params(file)
    assert after.tasks == (*before.tasks, "soccer-v3", "fold-towel")
    assert after.task_parameters["soccer-v3"].simulated
    assert not after.task_parameters["fold-towel"].simulated
    assert after.task_called("Fold the 'blue' towel: twice") == "fold-towel"
    assert after.model_dump(exclude={"tasks", "task_parameters"}) == before.model_dump(
        exclude={"tasks", "task_parameters"}
    )
    added = set(file.read_text().splitlines()) - set(text.splitlines())
    lost = [line for line in text.splitlines() if line not in file.read_text().splitlines()]
    assert len(lost) <= 2, "only lines that hold a whole list or mapping"
    assert len(added) <= 4
    assert all(comment in file.read_text() for comment in [part for part in text.split("\n") if part.startswith("#")])


def test_comments_of_a_block_stay_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(BLOCK)
    add_task(file, NewTask("fold-towel"))
    assert file.read_text() == BLOCK.replace("# the first one\n", "# the first one\n  - fold-towel\n").replace(
        "expert_noise: 0.0\n", "expert_noise: 0.0\n  fold-towel: {simulated: false}\n"
    )


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (NewTask("button-press-v3"), "is there already"),
        (NewTask("../elsewhere"), "cannot name a task"),
        (NewTask("with.dot"), "cannot name a task"),
        (NewTask("fold-towel", "button-press-v3"), "two tasks go by the name 'button-press-v3'"),
    ],
)
def test_what_cannot_be_added_changes_nothing(file: Path, task: NewTask, words: str) -> None:
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=words):
        add_task(file, task)
    assert file.read_bytes() == before


@given(called=st.text(min_size=1, max_size=120))
@example(called="\x85")
@example(called="two\nlines\u2028or three")
def test_whatever_a_dataset_calls_its_task_the_remedy_works(
    called: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    file.write_text(FLOW)
    task = new_task(called, ("button-press-v3",))
    assert len(task.lines.splitlines()) == 1
    add_task(file, task)
    assert load_params(file).task_called(called) == task.name


@pytest.mark.parametrize("name", ["123", "null", "yes", "1e3", "0x1F"])
def test_names_that_yaml_takes_for_something_else(file: Path, name: str) -> None:
    add_task(file, NewTask(name))
    assert load_params(file).tasks[-1] == name


def test_two_long_names_that_shrink_alike_stay_apart() -> None:
    assert new_task("Pick up!").name == "pick-up"
    assert new_task("Pick up!", ("pick-up", "pick-up-2")).name == "pick-up-3"
    assert new_task("机器人").name == "task"
    assert new_task("Reach v3").name == "reach-v3-2", "Meta-World's is another task"


def test_a_task_with_a_simulator_cannot_be_said_to_have_none() -> None:
    values: Any = yaml.safe_load(FLOW)
    values["task_parameters"]["button-press-v3"]["simulated"] = False
    with pytest.raises(ConfigError, match="give the one without a simulator another name"):
        load_params_of(values)
    values["task_parameters"] = {"towel": {}}
    values["tasks"] = ["towel"]
    with pytest.raises(ConfigError, match=r"set task_parameters\.towel\.simulated: false"):
        load_params_of(values)


def load_params_of(values: Any) -> Any:
    from world4rl.config import parse_params

    return parse_params(values, where="here")


def test_the_command_that_a_held_dataset_asks_for_lets_it_in(site: Site, record: Callable[..., Path]) -> None:
    site.paths.params.write_text(dump_params(site.params))
    record(site.folder / "mine", task="Fold the towel, please")
    taken = site.settle()["mine"]
    assert taken.state == "held"
    program, *arguments = shell(taken.detail["to do"])
    assert program == "world4rl"
    told = CliRunner().invoke(app, [*arguments, "--root", str(site.paths.root)])
    assert told.exit_code == 0, told.output
    site.params = load_params(site.paths.params)
    taken = site.took(site.look().due[0].name)
    assert taken.acceptance is not None
    assert {episode.task for episode in taken.acceptance.episodes} == {"fold-the-towel-please"}


def shell(command: str) -> list[str]:
    import shlex

    return shlex.split(command)
