"""A process that executes Dagster runs one after the other, for `pipelines.demo`.

One lane serves many runs, because starting one (Dagster, DVC, the definitions) costs seconds; and a lane is a process,
not a thread, because Dagster's in-process execution redirects the process's output and reconfigures its logging.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from world4rl.errors import World4RLError

if TYPE_CHECKING:
    from dagster import DagsterInstance, Definitions, ExecuteInProcessResult

    from assets.dvc_project import Stage
    from assets.stage_runner import Outcome

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

    def began(self, stage: Stage) -> None:
        self.send(News("began", stage.name))

    def printed(self, stage: Stage, text: str) -> None:
        sys.stderr.write(text)
        self.send(News("printed", stage.name, text=text))

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        self.send(News("unchanged" if outcome.cached else "ended", stage.name, seconds=outcome.seconds))


def serve(root: Path, connection: Connection, log: Path) -> None:
    """Executes the orders that come through the connection, until it ends.

    Args:
        root: The project's folder.
        connection: Takes `Order`s, gives `News` and, after each order, `Done`.
        log: Where this process's own output goes.
    """
    os.setsid()  # Ctrl-C is the parent's to hear: it interrupts the lanes that are busy, once
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    relay = _Relay(connection)
    try:
        from assets.stage_runner import StageRunner
        from pipelines.definitions import build_defs
        from pipelines.instance import open_instance

        definitions = build_defs(root=root, resource_overrides={"dvc": StageRunner(listener=relay)})
        with open_instance() as instance:
            while True:
                order = connection.recv()
                relay.send(_execute(definitions, instance, order))
    except EOFError:
        return
    except KeyboardInterrupt:
        relay.send(Done(interrupted=True))
    except World4RLError as error:
        relay.send(Done(failures=[str(error)]))
    except Exception as error:
        traceback.print_exc()
        relay.send(Done(failures=[f"{type(error).__name__}: {error}\n  where: {log}"]))


def _execute(definitions: Definitions, instance: DagsterInstance, order: Order) -> Done:
    from dagster import DagsterExecutionInterruptedError

    from pipelines.instance import owner_tag

    try:
        result = definitions.resolve_job_def(order.job).execute_in_process(
            run_config=QUIET,
            instance=instance,
            partition_key=order.partition,
            raise_on_error=False,
            tags=owner_tag(),
        )
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        return Done(interrupted=True)
    return Done(failures=_failures(result), checks=_failed_checks(result))


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


def _follow_parent(parent: int) -> None:
    """Interrupts this process when its parent is gone: what it runs is of no use to anybody."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
