"""Adds a task to the parameter file in place: everything else in it, comments too, stays as somebody wrote it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from world4rl.config import TASK_NAME, load_params, parse_params
from world4rl.envs.tasks import is_simulated
from world4rl.errors import ConfigError
from world4rl.files import locked, write_text


@dataclass(frozen=True)
class NewTask:
    """A task that the parameters do not name yet.

    Attributes:
        name: As the parameters and folders will call it.
        called: What datasets call it, where that cannot be its name.
    """

    name: str
    called: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Its entry in `task_parameters`."""
        settings: dict[str, Any] = {} if is_simulated(self.name) else {"simulated": False}
        return settings if self.called is None else {**settings, "called": [self.called]}

    @property
    def command(self) -> str:
        """The command that adds it."""
        called = "" if self.called is None else f" --called {shlex.quote(self.called)}"
        return f"world4rl params --add-task {self.name}{called}"

    @property
    def lines(self) -> str:
        """What `add_task` writes, for who writes it by hand."""
        return f"tasks: [..., {self.name}], and under task_parameters: {self.name}: {_flow(self.settings)}"


def new_task(called: str, taken: Collection[str] = ()) -> NewTask:
    """A task for what a dataset calls `called`: under that name where it can be one, else under one made of it.

    Args:
        called: Any text.
        taken: Names that are in use.
    """
    if re.fullmatch(TASK_NAME, called):
        return NewTask(called)
    words = re.sub(r"[^a-z0-9]+", "-", called.lower()).strip("-")[:60].strip("-") or "task"
    name, number = words, 2
    while name in taken or is_simulated(name):
        name, number = f"{words}-{number}", number + 1
    return NewTask(name, called)


def add_task(path: Path, task: NewTask) -> None:
    """Adds a task to a parameter file; another call waits meanwhile, and the file is whole at any time.

    Raises:
        ConfigError: the file or the task is not valid, or the file names the task already; nothing was changed.
    """
    with locked(path.parent / ".landing" / f"{path.name}.lock"):
        params = load_params(path)
        if task.name in params.tasks:
            raise ConfigError(f"the task {task.name!r} is there already", where=path, remedy="choose another name")
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
        values["tasks"] = [*values["tasks"], task.name]
        values["task_parameters"] = {**values["task_parameters"], task.name: task.settings}
        parse_params(values, where=path)  # complains of a name that cannot be one
        edited = _with_entry(_with_item(text, task.name), task.name, task.settings)
        if yaml.safe_load(edited) != values:
            raise ConfigError(
                "the file is laid out in a way that this command cannot add to",
                where=path,
                remedy=f"write {task.lines}",
            )
        write_text(path, edited)


def _with_item(text: str, name: str) -> str:
    """The text with one more item in the list `tasks`."""
    node = _section(text, "tasks")
    if node.flow_style:
        return _insert(text, node.value[-1].end_mark.index, f", {_scalar(name)}")
    return _insert_line(text, node, f"- {_scalar(name)}")


def _with_entry(text: str, name: str, settings: dict[str, Any]) -> str:
    """The text with one more entry in the mapping `task_parameters`."""
    node = _section(text, "task_parameters")
    if node.flow_style:
        return _insert(text, node.value[-1][1].end_mark.index, f", {_scalar(name)}: {_flow(settings)}")
    return _insert_line(text, node, f"{_scalar(name)}: {_flow(settings)}")


def _section(text: str, name: str) -> Any:
    whole: Any = yaml.compose(text, yaml.SafeLoader)
    return next(value for key, value in whole.value if key.value == name)


def _insert(text: str, place: int, more: str) -> str:
    return text[:place] + more + text[place:]


def _insert_line(text: str, node: Any, line: str) -> str:
    """The text with a line more behind the last one of a block, as far to the right as its first one."""
    last = node.value[-1][1] if isinstance(node.value[-1], tuple) else node.value[-1]
    while getattr(last, "flow_style", None) is False:  # a block in the block: its mark stands behind what follows it
        last = last.value[-1][1] if isinstance(last.value[-1], tuple) else last.value[-1]
    end = text.find("\n", last.end_mark.index)
    start = text.rfind("\n", 0, node.start_mark.index) + 1
    indent = " " * (node.start_mark.index - start)
    return f"{text}\n{indent}{line}\n" if end < 0 else _insert(text, end, f"\n{indent}{line}")


def _scalar(name: str) -> str:
    return name if yaml.safe_load(name) == name else f"'{name}'"


class _OneLine(yaml.SafeDumper):
    """Writes text with anything unprintable in double quotes: the other styles would break the line for some of it."""


def _represent_text(dumper: _OneLine, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_OneLine.add_representer(str, _represent_text)


def _flow(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_OneLine, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.strip()
