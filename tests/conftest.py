"""What every test relies on: no network, no telemetry, one thread, the rendering backend that works here."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("DAGSTER_PIPES_CONTEXT", None)

if "mujoco" not in sys.modules:  # must be chosen before the first import
    from world4rl.machine import use_rendering_backend

    use_rendering_backend()
