"""A process that executes Dagster runs one after the other, for `pipelines.demo`.

One lane serves many runs, because starting one (Dagster, DVC, the definitions) costs seconds; and a lane is a process,
not a thread, because Dagster's in-process execution redirects the process's output and reconfigures its logging.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from world4rl.errors import World4RLError

if TYPE_CHECKING:
    from dagster import DagsterInstance, Definitions, ExecuteInProcessResult

    from assets.stage_runner import Outcome, Work

# Dagster's own console log would drown the progress; it is all in the instance.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Order:
    """A run to execute.

    Attributes:
        job: Name of the job.
        partition: Its partition; None for a job without partitions.
    """

    job: str
    partition: str | None


@dataclass(frozen=True)
class News:
    """What happens to a stage.

    Attributes:
        kind: `began`, `printed`, `ended` (it ran) or `unchanged`.
        stage: Its name.
        text: The printed line.
        seconds: How long it took, once it ended.
    """

    kind: str
    stage: str
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Done:
    """How a run ended.

    Attributes:
        failures: Why steps failed; empty when none did.
        checks: Checks that were not passed, with their reasons.
        interrupted: Whether somebody stopped it.
    """

    failures: Sequence[str] = ()
    checks: Sequence[str] = ()
    interrupted: bool = False


class _Relay:
    """Tells the other end of the connection what the runner does, beside echoing what stages print."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: News | Done) -> None:
        with self._lock:
            self._connection.send(message)

    def began(self, stage: Work) -> None:
        self.send(News("began", stage.name))

    def printed(self, stage: Work, text: str) -> None:
        sys.stderr.write(text)
        self.send(News("printed", stage.name, text=text))

    def ended(self, stage: Work, outcome: Outcome) -> None:
        self.send(News("unchanged" if outcome.cached else "ended", stage.name, seconds=outcome.seconds))


class Stop:
    """Sent to a lane to interrupt what it executes; the end of the connection means the same."""


def serve(root: Path, connection: Connection, log: Path, task_threads: int) -> None:
    """Executes the orders that come through the connection, until it ends.

    Args:
        root: The project's folder.
        connection: Takes `Order`s and `Stop`, gives `News` and, after each order, `Done`.
        log: Where this process's own output goes.
        task_threads: Numeric threads for each of the stages that run side by side.
    """
    os.setsid()  # Ctrl-C is the parent's to hear: it interrupts the lanes that are busy, once
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been inherited as ignored
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    relay = _Relay(connection)
    with suppress(BrokenPipeError):  # the parent is gone
        try:
            _serve(root, connection, relay, task_threads)
        except World4RLError as error:
            relay.send(Done(failures=[str(error)]))
        except KeyboardInterrupt:
            relay.send(Done(interrupted=True))
        except Exception as error:
            from pipelines.instance import lost_storage

            traceback.print_exc()
            lost = lost_storage(error)
            relay.send(Done(failures=[str(lost) if lost else f"{type(error).__name__}: {error}\n  where: {log}"]))


def _serve(root: Path, connection: Connection, relay: _Relay, task_threads: int) -> None:
    from assets.stage_runner import StageRunner
    from pipelines.definitions import build_defs
    from pipelines.instance import open_instance

    runner = StageRunner(listener=relay, task_threads=task_threads)
    definitions = build_defs(root=root, resource_overrides={"dvc": runner})
    with open_instance() as instance:
        desk = _Desk(root, connection, instance)
        threading.Thread(target=desk.listen, daemon=True).start()
        while (order := desk.orders.get()) is not None:
            relay.send(desk.execute(definitions, order))


class _Desk:
    """Takes orders while one is being executed, and interrupts that one as Dagster's Terminate does."""

    def __init__(self, root: Path, connection: Connection, instance: DagsterInstance) -> None:
        self.orders: queue.Queue[Order | None] = queue.Queue()
        self._root = root
        self._connection = connection
        self._instance = instance
        self._run: str | None = None
        self._interrupted = False

    def listen(self) -> None:
        """Runs in a thread of its own."""
        try:
            while True:
                message = self._connection.recv()
                if isinstance(message, Stop):
                    self._interrupt()
                else:
                    self.orders.put(message)
        except (EOFError, OSError):
            self._interrupt()
            self.orders.put(None)

    def _interrupt(self) -> None:
        if self._run is None:
            return
        self._interrupted = True
        run = self._instance.get_run_by_id(self._run)
        if run is not None and not run.is_finished:
            self._instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGINT)

    def execute(self, definitions: Definitions, order: Order) -> Done:
        """Runs in the main thread, where Dagster hears interrupts."""
        from dagster import DagsterExecutionInterruptedError

        from pipelines.instance import owner_tag

        self._run = str(uuid.uuid4())
        try:
            result = definitions.resolve_job_def(order.job).execute_in_process(
                run_id=self._run,
                run_config=QUIET,
                instance=self._instance,
                partition_key=order.partition,
                raise_on_error=False,
                tags=owner_tag(),
            )
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            return Done(interrupted=True)
        finally:
            # However the run ended: what it still held of a pool would keep the next one waiting.
            self._instance.event_log_storage.free_concurrency_slots_for_run(self._run)
            self._run = None
        if self._interrupted:
            return Done(interrupted=True)
        return Done(failures=[*_failures(result), *self._keep(result, order)], checks=_failed_checks(result))

    def _keep(self, result: ExecuteInProcessResult, order: Order) -> list[str]:
        """Commits what a run that went well left to the lineage; returns why it could not."""
        from assets.lineage_ref import commit_lineage

        if not result.success:
            return []
        try:
            commit_lineage(self._root, run=result.run_id, job=order.job)
        except World4RLError as error:
            return [str(error)]
        return []


def _failures(result: ExecuteInProcessResult) -> list[str]:
    """Why steps failed, checks apart: the stage, its log and the end of it."""
    reasons = []
    for event in result.get_step_failure_events():
        cause = event.step_failure_data.error
        while cause is not None and cause.cause is not None:
            cause = cause.cause
        if cause is None or cause.cls_name == "DagsterAssetCheckFailedError":
            continue
        given = event.step_failure_data.user_failure_data
        reasons.append((given.description if given else None) or cause.message.strip())
    if not result.success and not reasons and not _failed_checks(result):
        reasons.append(result.get_run_failure_event().message or "a Dagster run failed")
    return reasons


def _failed_checks(result: ExecuteInProcessResult) -> list[str]:
    return [
        f"{check.asset_key.to_user_string()}: {check.check_name}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if not check.passed
    ]
