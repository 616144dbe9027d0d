"""Runs one DVC stage, or a command that is none, for a Dagster step.

Each in a process group of its own, with its progress and log visible live.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, Protocol

from dagster import AssetExecutionContext, Failure, MetadataValue, PreviewWarning, RetryRequested, open_pipes_session
from dagster import PipesTempFileContextInjector as ContextInjector
from dagster import PipesTempFileMessageReader as MessageReader

from assets import showing
from assets.dvc_project import DvcProject, Stage, StageBusyError
from world4rl.provenance.notes import ORCHESTRATOR

SUPERVISOR = Path(__file__).with_name("supervisor.py")
TAIL_LINES = 30
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RETRIES = 2  # of a stage that a signal killed: it continues from its checkpoint
RETRY_SECONDS = 5
SIGNALLED = 128  # the supervisor adds it to the number of the signal that ended what it ran


@dataclass(frozen=True)
class Outcome:
    """How a stage ended, when it ended well.

    Attributes:
        cached: Whether nothing had to be done.
        seconds: Wall time, waiting for others included.
        log: What the stage printed; None when nothing ran.
    """

    cached: bool
    seconds: float
    log: Path | None


@dataclass(frozen=True)
class Command:
    """A command that is no stage: it records an event, and DVC has nothing to say about it.

    Attributes:
        name: For people and for the name of its log.
        task: The task that it serves; None for all.
        arguments: What runs.
    """

    name: str
    task: str | None
    arguments: Sequence[str]


class Work(Protocol):
    """What a runner runs: a stage, or a command that is none."""

    @property
    def name(self) -> str:
        """For people and for the name of its log."""

    @property
    def task(self) -> str | None:
        """The task that it serves; None for all."""


class Listener(Protocol):
    """Hears what a runner does. Called from the threads that run the stages."""

    def began(self, stage: Work) -> None:
        """A stage is about to run: it is not up to date."""

    def printed(self, stage: Work, text: str) -> None:
        """A running stage printed a line; `text` ends with its newline."""

    def ended(self, stage: Work, outcome: Outcome) -> None:
        """A stage ended well, or was up to date."""


class Echo:
    """Repeats what a stage prints on standard error, where Dagster captures it for the run's page."""

    def began(self, stage: Work) -> None:
        """Nothing: DVC prints the stage's name itself."""

    def printed(self, stage: Work, text: str) -> None:
        """Repeats the line."""
        sys.stderr.write(text)

    def ended(self, stage: Work, outcome: Outcome) -> None:
        """Nothing: Dagster records it."""


class StageRunner:
    """The resource `dvc` of every asset.

    Args:
        listener: Hears what happens.
        task_threads: Numeric threads for a stage that serves one task, where several of them run side by side; as
            many as there are cores when None. `threads` in params.yaml goes before it.
        grace_seconds: Time that a stopped stage has to end before it is killed.
        busy_seconds: Pause before trying again when somebody else is running the same stage.
    """

    def __init__(
        self,
        *,
        listener: Listener | None = None,
        task_threads: int | None = None,
        grace_seconds: float = 10.0,
        busy_seconds: float = 3.0,
    ) -> None:
        self.listener = Echo() if listener is None else listener
        self.task_threads = task_threads
        self.grace_seconds = grace_seconds
        self.busy_seconds = busy_seconds

    def run(self, context: AssetExecutionContext, project: DvcProject, stage: Stage) -> Outcome:
        """Brings one stage up to date. A second runner of the same stage waits and then finds it unchanged.

        DVC looks at code, parameters and manifests when the command has ended, and would take what somebody edited
        meanwhile for what ran: then it runs again.

        Raises:
            Failure: the stage failed; names its log and shows the end of it.
            RetryRequested: a signal killed the stage, for lack of memory perhaps.
        """
        began = time.monotonic()
        log = _log(project.root, stage)
        ran = False
        while not (ran or self._unchanged(context, project, stage)):
            self.listener.began(stage)
            read = project.read_now(stage)
            status, tail = self._execute(context, stage, project.root, project.repro_command(stage), log)
            if status and not project.was_busy(tail):  # if so, somebody was faster: ask again
                _give_up(context, project.root, stage, tail, killed=project.was_killed(tail))
            ran = status == 0 and project.read_now(stage) == read
            if status == 0 and not ran:
                context.log.warning(f"{stage.name}: code, parameters or manifest were edited while it ran: once more")
                project.forget(stage)
        if not ran:
            context.log.info(f"{stage.name} is up to date")
        outcome = Outcome(cached=not ran, seconds=time.monotonic() - began, log=log if ran else None)
        self.listener.ended(stage, outcome)
        return outcome

    def run_command(self, context: AssetExecutionContext, root: Path, command: Command) -> Outcome:
        """Runs a command that is no stage, in the project's folder; it knows itself whether there is anything to do.

        Raises:
            Failure: it failed; names its log and shows the end of it.
            RetryRequested: a signal killed it.
        """
        began = time.monotonic()
        log = _log(root, command)
        self.listener.began(command)
        status, tail = self._execute(context, command, root, command.arguments, log)
        if status:
            _give_up(context, root, command, tail, killed=status > SIGNALLED)
        outcome = Outcome(cached=False, seconds=time.monotonic() - began, log=log)
        self.listener.ended(command, outcome)
        return outcome

    def _unchanged(self, context: AssetExecutionContext, project: DvcProject, stage: Stage) -> bool:
        """Whether the stage is up to date, as soon as nobody else is running it."""
        told = False
        while True:
            try:
                return project.unchanged(stage)
            except StageBusyError:
                if not told:
                    context.log.info(f"{stage.name} is being run by somebody else: waiting for it")
                    told = True
                time.sleep(self.busy_seconds)

    def _execute(
        self, context: AssetExecutionContext, work: Work, root: Path, command: Sequence[str], log: Path
    ) -> tuple[int, str]:
        """Runs a command to its end; returns its exit status and the last lines of its output."""
        log.parent.mkdir(parents=True, exist_ok=True)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        with (
            warnings.catch_warnings(action="ignore", category=PreviewWarning),  # Dagster's own, about itself
            open_pipes_session(context, ContextInjector(), MessageReader()) as pipes,
            self._process(work, root, command, context.run_id, dict(pipes.get_bootstrap_env_vars())) as process,
        ):
            assert process.stdout is not None
            copier = threading.Thread(target=self._copy, args=(work, process.stdout, log, tail), daemon=True)
            copier.start()
            process.wait()  # an interrupt, from Dagster's Terminate or from Ctrl-C, is raised here
            copier.join(timeout=5)
        return process.returncode, "".join(tail)

    @contextmanager
    def _process(
        self, work: Work, root: Path, command: Sequence[str], run: str, variables: dict[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        """A process group that is gone when the block ends, however it ends."""
        binaries = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            **variables,
            ORCHESTRATOR: run,
            "PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)]),
        }
        if work.task is not None and self.task_threads is not None:
            environment |= dict.fromkeys(THREAD_VARIABLES, str(self.task_threads))
        reading, writing = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), str(reading), *command],
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=[reading],
                start_new_session=True,
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        try:
            yield process
        finally:
            _end_group(process, self.grace_seconds)
            os.close(writing)

    def _copy(self, work: Work, output: IO[str], log: Path, tail: deque[str]) -> None:
        """Reads what a command prints, to its end: it would wait for ever for a reader whom a full disk stopped."""
        with suppress(OSError):
            log.write_text("", encoding="utf-8")
        for text in output:
            tail.append(text)
            with suppress(OSError), log.open("a", encoding="utf-8") as file:
                file.write(text)
            with suppress(OSError):
                self.listener.printed(work, text)


def _end_group(supervisor: subprocess.Popen[str], grace_seconds: float) -> None:
    """Has the supervisor interrupt its group if that still runs, so that the stage may tidy up, and then kill it."""
    for number, seconds in ((signal.SIGINT, grace_seconds), (signal.SIGTERM, grace_seconds)):
        if supervisor.poll() is None:
            supervisor.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                supervisor.wait(timeout=seconds)
    if supervisor.poll() is None:
        supervisor.kill()
        supervisor.wait()


def _log(root: Path, work: Work) -> Path:
    return root / ".runs" / "logs" / f"{work.name}.log"


def _give_up(context: AssetExecutionContext, root: Path, work: Work, tail: str, *, killed: bool) -> NoReturn:
    """Fails the step, or has it tried again where a signal killed what ran."""
    failure = _failure(root, work, tail)
    if killed:
        # Not a retry policy: with one, Dagster takes an interrupt for a reason to try again as well, and Terminate
        # would start the trainer anew.
        wait = RETRY_SECONDS * 2**context.retry_number
        raise RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from failure
    raise failure


def _failure(root: Path, work: Work, tail: str) -> Failure:
    log = _log(root, work)
    return Failure(
        description=f"stage {work.name} failed; its log: {log}\n{tail.strip()}",
        metadata={"stage": work.name, "log": showing.link(root, log), "end of log": MetadataValue.text(tail)},
    )
