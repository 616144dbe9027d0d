"""Runs a stage: checks its parameters and the machine, shows it only the parameters it declares, reports on it."""

from __future__ import annotations

import gc
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from world4rl import machine, progress
from world4rl.config import Params, load_params
from world4rl.envs.tasks import is_simulated
from world4rl.errors import ConfigError
from world4rl.paths import Paths
from world4rl.provenance import notes, signatures
from world4rl.stages import EXECUTION, STAGES, Stage

FREE_GIGABYTES = 0.5  # disk space without which no stage starts


def run_stage(command: str, root: Path, params_file: Path, task: str | None = None) -> None:
    """Runs one stage.

    Args:
        command: The stage's name in `STAGES`.
        root: The repository's root folder.
        params_file: The parameter file, below `root` unless absolute.
        task: The task, for a stage that runs once a task.

    Raises:
        World4RLError: something that the reader can mend.
    """
    stage = STAGES[command]
    with prepared(command, root, params_file, task) as params:
        if stage.renders and (task is None or is_simulated(task)):
            machine.use_rendering_backend()
        visible = visible_params(params, stage, task)
        note = notes.begin(command_line(stage, task), visible_values(visible), root)
        function = _load(stage)
        _seed(params.seed if "seed" in stage.sections else 0)
        arguments: list[Any] = [visible, Paths(root)]
        function(*arguments, *([task] if stage.per_task else []))
        notes.end(note, root / stage.metrics.format(task=task), Paths(root))


@contextmanager
def prepared(command: str, root: Path, params_file: Path, task: str | None = None) -> Iterator[Params]:
    """Parameters and machine checked, listeners found: what everything that computes begins with.

    Args:
        command: The command, to name it to the listeners.
        root: The repository's root folder.
        params_file: The parameter file, below `root` unless absolute.
        task: The task, where it is about one.

    Raises:
        World4RLError: something that the reader can mend.
    """
    file = root / params_file
    params = load_params(file)
    if task is not None and task not in params.tasks:
        raise ConfigError(
            f"no task {task!r}", where=file, remedy=f"use one of its tasks ({', '.join(params.tasks)}) or add it there"
        )
    machine.check_disk(root, FREE_GIGABYTES)
    machine.use_threads(params.threads)
    with progress.session(command if task is None else f"{command} {task}"):
        signatures.use(params.signatures)
        yield params


def _load(stage: Stage) -> Callable[..., object]:
    """The stage's function.

    What an import makes lives until the process ends. To look through these million objects for garbage, again and
    again while they are made, and once more at the end, takes a second a stage: so they are kept out of it.
    """
    module, _, name = stage.function.partition(":")
    gc.disable()
    try:
        function: Callable[..., object] = getattr(importlib.import_module(module), name)
    finally:
        gc.enable()
    gc.freeze()
    return function


def command_line(stage: Stage, task: str | None) -> str:
    """What `dvc.yaml` calls."""
    return f"world4rl {stage.command}" + (f" --task {task}" if stage.per_task else "")


def _seed(seed: int) -> None:
    """Seeds the global generators, for libraries that draw from them; the stages use generators of their own."""
    random.seed(seed)
    if "numpy" in sys.modules:  # a stage that has not imported them by now draws nothing from them
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


class _VisibleParams(Params):
    """Parameters of which only some fields can be read."""

    def __getattribute__(self, name: str) -> Any:
        if name in Params.model_fields:
            values = object.__getattribute__(self, "__dict__")
            if name not in values:
                raise RuntimeError(
                    f"this stage reads params.{name} without declaring it: add it to world4rl/stages.py and dvc.yaml, "
                    "or a change of it would not run the stage again"
                )
            return values[name]
        return super().__getattribute__(name)


def visible_params(params: Params, stage: Stage, task: str | None = None) -> Params:
    """The parameters as `stage` may read them: any other field raises RuntimeError on access."""
    values = {name: getattr(params, name) for name in (*stage.sections, *EXECUTION)}
    if "task_parameters" in values and task is not None:
        values["task_parameters"] = {task: params.task_parameters[task]}
    visible = _VisibleParams.model_construct()
    visible.__dict__.clear()
    visible.__dict__.update(values)
    return visible


def visible_values(visible: Params) -> dict[str, Any]:
    """Visible parameters as JSON values by name."""
    return {name: to_jsonable_python(value) for name, value in object.__getattribute__(visible, "__dict__").items()}
