"""`make ui`: the Dagster UI on loopback, over the instance that `make demo` writes to."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pipelines.instance import prepare_home

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Replaces this process by `dagster dev`."""
    parser = argparse.ArgumentParser(description="Open the Dagster UI.")
    parser.add_argument("--port", type=int, default=3000)
    port = parser.parse_args().port
    prepare_home(ROOT)
    os.chdir(ROOT)
    print(f"Dagster UI: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
