"""Stands in for the stages of the lineage: data for real, models and reports as text."""

import sys
from pathlib import Path

from world4rl.config import load_params
from world4rl.demos.storing import store_demos
from world4rl.landing.verify import verify
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_folder


def main():
    step, task = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    params, paths = load_params(Path("params.yaml")), Paths()
    if step == "landed":
        verify(params, paths, task)
    elif step == "demo_store":
        store_demos(params, paths, task)
    else:
        made = paths.fidelity if step == "fidelity" else paths.bc(task)
        made.mkdir(parents=True, exist_ok=True)
        (made / "made.txt").write_text(f"{step} of {digest_folder(Path('data/store'))}")


if __name__ == "__main__":
    main()
