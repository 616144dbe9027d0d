"""`make ui`: the Dagster UI on loopback with the daemon behind it, over the instance that `make demo` writes to."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipelines.instance import prepare_home
from world4rl.errors import World4RLError

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Replaces this process by `dagster dev`; returns the exit status where it cannot."""
    parser = argparse.ArgumentParser(description="Open the Dagster UI.")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with workspace.yaml (default: this repository)")
    options = parser.parse_args()
    try:
        prepare_home(options.root)
    except World4RLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    os.chdir(options.root)
    print(f"Dagster UI: http://127.0.0.1:{options.port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p"]
    os.execv(sys.executable, [*command, str(options.port)])


if __name__ == "__main__":
    sys.exit(main())
