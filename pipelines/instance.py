"""The persistent Dagster instance of a project, in its folder `.dagster`.

Its runs and events lie in SQLite files there, or in PostgreSQL: one setting, see `choose_storage`.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import yaml

from world4rl.errors import ConfigError, MachineError
from world4rl.files import write_text
from world4rl.provenance.digests import digest_file

if TYPE_CHECKING:
    from dagster import DagsterInstance

OWNER_TAG = "world4rl/process"
POSTGRES = "WORLD4RL_POSTGRES"  # the variable with the database's address
EXAMPLE = f"{POSTGRES}=postgresql://USER:PASSWORD@HOST/DATABASE"
SCHEME, DRIVEN = "postgresql", "postgresql+psycopg2"
# A password with a sign in it that ends a part of a URL would be taken for a host or a path, and shown as such.
ADDRESS = re.compile(
    rf"(?:{SCHEME}|{re.escape(DRIVEN)})://"
    r"(?P<rest>(?:(?P<login>[^@/?#]*)@)?(?P<place>[^@/?#]*(?:/[^@?#]*)?)(?:\?\w+=[^@#]*)?)"
)
CONNECT_SECONDS = 10

SETTINGS = """\
# Written once by pipelines/instance.py; edit it as you like.
telemetry:
  enabled: false
nux: # no sign-up dialog
  enabled: false

concurrency:
  runs:
    # Many, because taking a dataset out of the landing folder must not wait for a training that takes hours.
    max_concurrent_runs: 10
    tag_concurrency_limits:
      # So many passages of the lineage (pipelines/jobs.py) at once; those that wait go by dagster/priority.
      - key: world4rl/passage
        limit: 2
      # So many datasets are read at once.
      - key: world4rl/dataset
        limit: 2
      # Runs of the same task follow each other, so that no stage is asked for twice at once.
      - key: dagster/partition
        value:
          applyLimitPerUniqueValue: true
        limit: 1
  pools:
    # Each stage that serves all tasks is a pool of its own.
    default_limit: 1
    granularity: op

run_queue: # a queued run waits for definitions that cannot be loaded at the moment: their server is starting again
  max_user_code_failure_retries: 20
  user_code_failure_retry_delay: 15

run_launcher: # runs on this machine, and notices when the process of one is gone
  module: pipelines.launcher
  class: LocalRunLauncher

run_monitoring:
  # A run whose process died is marked as failed, and what it held is free again.
  enabled: true
  poll_interval_seconds: 20
  free_slots_after_run_end_seconds: 60
"""

# SHA-256 of settings that earlier versions wrote: where nobody edited them, the new ones take their place.
FORMER = frozenset({"b24f36eac9ab1f82452038e3e34ae580d56a6dc44970f87553dbbd361088497d"})
STORAGE = f"""
storage:
  # Runs, events and schedules, in PostgreSQL. The address holds a password: it stays in the environment.
  postgres:
    postgres_url:
      env: {POSTGRES}
"""


def prepare_home(root: Path) -> Path:
    """The instance's folder, with settings if it had none; sets DAGSTER_HOME for this process and its children.

    Raises:
        ConfigError: the settings and the environment disagree about PostgreSQL.
        MachineError: PostgreSQL does not answer.
    """
    home = (root / ".dagster").resolve()
    settings = home / "dagster.yaml"
    if not settings.exists() or digest_file(settings) in FORMER:
        write_text(settings, SETTINGS)
    if choose_storage(settings):
        os.environ[POSTGRES] = require_postgres(os.environ[POSTGRES])
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    return home


def choose_storage(settings: Path) -> bool:
    """Whether the instance is kept in the database that `WORLD4RL_POSTGRES` names.

    The variable, once set, is noted in `dagster.yaml`. From then on it must be set: whoever forgot it would otherwise
    write half of the runs into another place.

    Args:
        settings: The instance's `dagster.yaml`.

    Raises:
        ConfigError: the file and the environment disagree.
    """
    text = settings.read_text(encoding="utf-8")
    try:
        storage = (yaml.safe_load(text) or {}).get("storage")
    except (yaml.YAMLError, AttributeError) as error:
        raise ConfigError(
            f"not the settings of a Dagster instance: {error}", where=settings, remedy="correct or delete the file"
        ) from None
    asked = bool(os.environ.get(POSTGRES))
    ours = storage is not None and POSTGRES in str(storage)
    if asked and storage is None:
        write_text(settings, text.rstrip("\n") + "\n" + STORAGE)
    elif asked and not ours:
        raise ConfigError(
            f"{POSTGRES} is set, and the file has a storage of its own", where=settings, remedy="take out one of them"
        )
    elif ours and not asked:
        raise ConfigError(
            f"this instance is kept in PostgreSQL, but {POSTGRES} is not set",
            where=settings,
            remedy=f"set it ({EXAMPLE}), or take `storage` out of the file to begin anew with SQLite",
        )
    return asked


def require_postgres(address: str) -> str:
    """Makes sure that the database answers.

    Args:
        address: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. No message shows its password.

    Returns:
        The address with the driver that Dagster brings: SQLAlchemy would look for another one by default.

    Raises:
        ConfigError: it is no such address.
        MachineError: nobody answers there, or does not let us in.
    """
    import psycopg2

    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise ConfigError(
            "not the address of a PostgreSQL database",
            where=POSTGRES,
            remedy=f"write {EXAMPLE}, with @ / ? # in a password as %40 %2F %3F %23",
        )
    try:
        psycopg2.connect(f"{SCHEME}://{parts['rest']}", connect_timeout=CONNECT_SECONDS).close()
    except psycopg2.Error as error:
        raise unreachable(error) from None
    return f"{DRIVEN}://{parts['rest']}"


def unreachable(error: BaseException) -> MachineError:
    """The error that Dagster's storage does not answer, in our words."""
    parts = ADDRESS.fullmatch(os.environ.get(POSTGRES, ""))
    reason = " ".join(str(error).split())
    password = (parts["login"] or "").partition(":")[2] if parts else ""
    if password:
        reason = reason.replace(password, "***")
    return MachineError(
        f"Dagster's storage does not answer: {reason}",
        where=f"{SCHEME}://{parts['place']}" if parts else POSTGRES,
        remedy=f"start PostgreSQL again or correct {POSTGRES}, and run the same command again: what is done stays "
        "done, and what landed waits in a ledger of its own",
    )


def lost_storage(error: BaseException | None) -> MachineError | None:
    """The error in our words where a storage that cannot be used caused it, a database that went away; else None."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    while error is not None:
        if isinstance(error, OperationalError | InterfaceError):
            reason = error.orig or error
            return unreachable(reason) if os.environ.get(POSTGRES) else _unusable(reason)
        error = error.__cause__ or error.__context__
    return None


def _unusable(error: BaseException) -> MachineError:
    """The error that the SQLite files of Dagster's storage cannot be read or written: a full disk is one, too."""
    return MachineError(
        f"Dagster's storage cannot be used: {error}",
        where=os.environ["DAGSTER_HOME"],
        remedy="free some space there, or make the disk writable again, and run the same command again: what is done "
        "stays done, and what landed waits in a ledger of its own",
    )


def open_instance() -> DagsterInstance:
    """The instance at DAGSTER_HOME, its databases made, and runs of killed processes marked as failed.

    One process at a time: SQLite tables that two create at once are an error.
    """
    from dagster import DagsterInstance  # takes a second, which the program that starts the lanes need not spend

    with (Path(os.environ["DAGSTER_HOME"]) / "open.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        instance = DagsterInstance.get()
        _close_orphans(instance)
    return instance


def owner_tag() -> dict[str, str]:
    """Marks a run as executed inside this process."""
    return {OWNER_TAG: _owner(psutil.Process())}


def _close_orphans(instance: DagsterInstance) -> None:
    """Marks runs as failed whose process was killed, and frees the pools that they held."""
    from dagster import DagsterRunStatus, RunsFilter

    unfinished = RunsFilter(
        statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED]
    )
    orphans = [
        run for run in instance.get_runs(unfinished) if OWNER_TAG in run.tags and not is_alive(run.tags[OWNER_TAG])
    ]
    for run in orphans:
        instance.report_run_failed(run, "the process that executed this run was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _owner(process: psutil.Process) -> str:
    return f"{process.pid}-{int(process.create_time())}@{socket.gethostname()}"


def is_alive(owner: str) -> bool:
    """Whether a process runs. Of those on another machine that shares the database, nobody here can say that not."""
    if owner.partition("@")[2] != socket.gethostname():
        return True
    try:
        return _owner(psutil.Process(int(owner.partition("-")[0]))) == owner
    except psutil.NoSuchProcess:
        return False
