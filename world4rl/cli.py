"""The command line: one command a stage of the lineage, and a few for people.

Heavy modules are imported inside the commands, so that `world4rl --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer

from world4rl.commands import audit, generations, landing, promotion
from world4rl.commands.options import PARAMS, ROOT, ParamsOption, RootOption
from world4rl.errors import ConfigError, MachineError, World4RLError
from world4rl.files import disk_full
from world4rl.stages import STAGES, Stage

app = typer.Typer(
    help="World4RL: refine robot policies by reinforcement learning inside a diffusion world model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
STAGE_PANEL = "Stages of the lineage, as dvc.yaml calls them"
TaskOption = Annotated[str, typer.Option("--task", help="One of the parameter file's tasks.")]


def _add_stage(stage: Stage) -> None:
    def for_task(task: TaskOption, params: ParamsOption = PARAMS, root: RootOption = ROOT) -> None:
        from world4rl.runner import run_stage

        run_stage(stage.command, root, params, task)

    def for_all(params: ParamsOption = PARAMS, root: RootOption = ROOT) -> None:
        from world4rl.runner import run_stage

        run_stage(stage.command, root, params)

    app.command(stage.command, help=stage.summary, rich_help_panel=STAGE_PANEL)(for_task if stage.per_task else for_all)


def _plugins() -> list[Callable[[typer.Typer], None]]:
    """Commands of whoever stands above this package: it knows none of them, and works where they are not installed."""
    found = []
    for point in sorted(entry_points(group="world4rl.commands"), key=lambda point: point.name):
        try:
            found.append(point.load())
        except ModuleNotFoundError as error:
            if error.name is None or not f"{point.module}.".startswith(f"{error.name}."):
                raise
    return found


for _stage in STAGES.values():
    _add_stage(_stage)


@app.command("params")
def show_params(
    profile: Annotated[str, typer.Option("--profile", help="ci, demo or paper.")] = "demo",
    out: Annotated[Path | None, typer.Option("--out", help="Write there instead of printing.")] = None,
    add_task: Annotated[
        str | None, typer.Option("--add-task", metavar="NAME", help="Add a task to the parameter file instead.")
    ] = None,
    called: Annotated[str | None, typer.Option("--called", help="What landed datasets call the new task.")] = None,
    params: ParamsOption = PARAMS,
    root: RootOption = ROOT,
) -> None:
    """Print a profile as a complete parameter file, or add a task to the one that is there."""
    from world4rl.config import dump_params, load_profile
    from world4rl.files import write_text

    if add_task is not None:
        from world4rl.editing import NewTask
        from world4rl.editing import add_task as add

        task = NewTask(add_task, called)
        add(root / params, task)
        typer.echo(f"{root / params} has the task {task.name}: {task.settings or 'as the defaults are'}")
        return
    text = dump_params(load_profile(profile))
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)


@app.command()
def check(params: ParamsOption = PARAMS, root: RootOption = ROOT) -> None:
    """Validate the parameter file and the machine before anything runs."""
    from world4rl import machine
    from world4rl.config import load_params
    from world4rl.runner import FREE_GIGABYTES

    loaded = load_params(root / params)
    typer.echo(f"parameters: {root / params} is valid (profile {loaded.profile}; {', '.join(loaded.tasks)})")
    machine.check_disk(root, FREE_GIGABYTES)
    typer.echo(f"rendering: {machine.rendering_backend()} draws")
    typer.echo(f"device: {machine.select_device(loaded.device)}")
    typer.echo("machine: " + ", ".join(f"{name} {value}" for name, value in machine.describe().items()))


@app.command()
def ingest(
    dataset: Annotated[Path, typer.Argument(help="Folder of a LeRobot v3 dataset.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the Zarr store to write.")],
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=FEATURE", help="Which of the dataset's features stands for NAME."),
    ] = None,
    size: Annotated[int | None, typer.Option("--size", min=1, help="Resize frames to SIZE x SIZE pixels.")] = None,
    fit: Annotated[
        Literal["stretch", "crop", "pad"],
        typer.Option("--fit", help="How frames of another shape get there: stretched, cropped or padded with black."),
    ] = "stretch",
) -> None:
    """Check any LeRobot v3 dataset and convert it into a Zarr store."""
    mapping: dict[str, str] = {}
    for pair in map_ or []:
        name, equals, feature = pair.partition("=")
        if not (name and equals and feature) or name in mapping:
            raise ConfigError(
                f"cannot use the mapping {pair!r}",
                where="--map",
                remedy="give each name once, as NAME=FEATURE, e.g. --map action=actions.delta",
            )
        mapping[name] = feature
    from world4rl import progress
    from world4rl.demos.ingest import ingest_command

    with progress.session(f"ingest {dataset}"):
        ingest_command(dataset, out, mapping, size, fit)


for _add in (landing.add, generations.add, promotion.add, audit.add, *_plugins()):
    _add(app)


def main() -> NoReturn:
    """Entry point of `world4rl`: errors that a user can mend are printed without a traceback, with status 1."""
    _restart_with_environment()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except World4RLError as error:
        _fail(error)
    except Exception as error:
        if not disk_full(error):
            raise
        where = error.filename if isinstance(error, OSError) else None
        _fail(MachineError("the disk is full", where=where, remedy="free some space and run the same command again"))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)


def _fail(error: World4RLError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends the process like an exception, so that half-written files go and listeners are told."""
    sys.exit(128 + number)


# Large tensors come and go at every step: glibc keeps their memory, in large pages, instead of giving it back.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4000000000:glibc.malloc.trim_threshold=8000000000"


def _restart_with_environment() -> None:
    """Starts this program again with what a process must be born with: how it allocates, and a fixed hash seed.

    LeRobot writes the keys of its statistics in set order, which follows the hash seed.
    """
    if os.environ.get("PYTHONHASHSEED") != "0" and len(sys.argv) > 1 and sys.argv[1] in (*STAGES, "ingest"):
        os.environ["PYTHONHASHSEED"] = "0"
        os.environ.setdefault("GLIBC_TUNABLES", MALLOC)
        os.execv(sys.executable, [sys.executable, "-m", "world4rl", *sys.argv[1:]])
