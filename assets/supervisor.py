"""Runs a command in this process's group and ends the whole group when the process that asked for it is gone.

Dagster's step may be killed outright, by the kernel when memory runs out for one. Whatever it started must not train
on unseen, beside the next attempt. Started as a plain script, so that it costs some milliseconds:

    python -I -S supervisor.py FD COMMAND...

FD is the reading end of a pipe that nobody writes to: it ends when the last holder of the writing end does.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 10.0


def _watch(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(0, signal.SIGINT)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Runs the command; returns its exit status, 128 + N when signal N ended it."""
    pipe, command = int(sys.argv[1]), sys.argv[2:]
    # The group's interrupt is meant for the command. A handler, not SIG_IGN: that one the command would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command)
    threading.Thread(target=_watch, args=(pipe,), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
