"""Runs a command in a process group of its own, and ends the whole group on request or when nobody waits for it.

    python -I -S supervisor.py FD COMMAND...

SIGINT is passed on to the group, so that the command may tidy up; SIGTERM kills the group. FD is the reading end of a
pipe that nobody writes to: it ends when its last holder is gone, Dagster's step killed outright perhaps, and what that
had started must not train on unseen beside the next attempt.

This process outlives the group and reaps it: DVC takes a lock for held while the process that took it exists, be it
as a zombie. It is a plain script, so that it costs some milliseconds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 10.0
SENT: dict[int, int] = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGKILL}


def _send(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _watch(pipe: int, group: int) -> None:
    os.read(pipe, 1)
    _send(group, signal.SIGINT)
    time.sleep(GRACE_SECONDS)
    _send(group, signal.SIGKILL)


def main() -> int:
    """Runs the command; returns its exit status, 128 + N when signal N ended it."""
    pipe, command = int(sys.argv[1]), sys.argv[2:]
    groups: list[int] = []
    early: list[int] = []

    def forward(number: int, frame: object) -> None:
        if groups:
            _send(groups[0], SENT[number])
        else:
            early.append(number)

    for number in SENT:  # handlers, not SIG_IGN: that one the command would inherit
        signal.signal(number, forward)
    child = subprocess.Popen(command, start_new_session=True)
    groups.append(child.pid)
    for number in early:
        forward(number, None)
    threading.Thread(target=_watch, args=(pipe, child.pid), daemon=True).start()
    status = child.wait()
    _send(child.pid, signal.SIGKILL)  # what it left behind
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
