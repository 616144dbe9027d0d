"""`make ui`: the Dagster UI on loopback with the daemon behind it, over the instance that `make demo` writes to.

What the assets link to opens there too (pipelines/webserver.py).
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from pipelines.instance import prepare_home
from world4rl.errors import MachineError, World4RLError

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Runs `dagster dev` to its end; returns the exit status where it cannot."""
    parser = argparse.ArgumentParser(description="Open the Dagster UI.")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with workspace.yaml (default: this repository)")
    options = parser.parse_args()
    try:
        prepare_home(options.root)
        require_free(options.port)
    except World4RLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    os.chdir(options.root)
    # A shell that starts this in the background has Ctrl-C ignored, and Dagster would then ignore a polite kill too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"Dagster UI: http://{HOST}:{options.port} (Ctrl-C ends it)", flush=True)
    return serve(options.port)


def serve(port: int) -> int:
    """`dagster dev`, with our web server in the place of Dagster's, for which it has no option."""
    from dagster._cli import dev  # takes a second, which an error need not wait for

    start = dev.open_ipc_subprocess

    def start_ours(parts: Sequence[str], **kwargs: Any) -> Popen[Any]:
        return start(["pipelines.webserver" if part == "dagster_webserver" else part for part in parts], **kwargs)

    dev.open_ipc_subprocess = start_ours
    return int(dev.dev_command.main(["-w", "workspace.yaml", "-h", HOST, "-p", str(port)], standalone_mode=False) or 0)


def require_free(port: int) -> None:
    """Makes sure that nobody listens on a port of loopback: Dagster would start a second daemon and choose another one.

    Raises:
        MachineError: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended does not count
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise MachineError(
                f"the port cannot be used: {error.strerror}",
                where=f"{HOST}:{port}",
                remedy="open the UI that runs there, end it, or try `python -m pipelines.ui --port N`",
            ) from None


if __name__ == "__main__":
    sys.exit(main())
