"""What the machine must offer: a way to draw without a screen, disk space, a device for torch.

Run as a program (`python -m world4rl.machine`), it draws one frame with the backend that `MUJOCO_GL` names. That is how
`rendering_backend` finds out what works: a broken OpenGL driver may end the process that tries it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from world4rl.errors import MachineError

if TYPE_CHECKING:
    import torch

BACKENDS = ("egl", "osmesa")
REMEDY = (
    "install one of them: on Debian or Ubuntu `apt-get install libegl1 libgl1-mesa-dri` for EGL or "
    "`apt-get install libosmesa6` for OSMesa; on Fedora `dnf install mesa-libEGL mesa-dri-drivers` or "
    "`dnf install mesa-libOSMesa`"
)
PROBE_SECONDS = 60
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# Those that decide what a stage computes; all others follow from the digest of the requirements lock.
LIBRARIES = (
    "diffusers",
    "gymnasium",
    "lerobot",
    "metaworld",
    "mujoco",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "torch",
    "torchvision",
    "world4rl",
    "zarr",
)


def rendering_backend() -> str:
    """The OpenGL backend that MuJoCo can draw with here, by having drawn a frame with it.

    Tries what `MUJOCO_GL` names when it is set, otherwise EGL and then OSMesa.

    Raises:
        MachineError: none of them draws.
    """
    chosen = os.environ.get("MUJOCO_GL")
    failures = {}
    for backend in (chosen,) if chosen else BACKENDS:
        problem = _try_backend(backend)
        if problem is None:
            return backend
        failures[backend] = problem
    reasons = "; ".join(f"{backend}: {problem}" for backend, problem in failures.items())
    if chosen:
        raise MachineError(
            f"MuJoCo cannot draw with the backend of the environment ({reasons})",
            where=f"MUJOCO_GL={chosen}",
            remedy="unset MUJOCO_GL to let world4rl choose between EGL and OSMesa",
        )
    raise MachineError(f"MuJoCo cannot draw: no rendering backend works ({reasons})", remedy=REMEDY)


def use_rendering_backend() -> str:
    """Chooses the backend for this process and its children; must come before the first import of mujoco.

    Raises:
        MachineError: none of them draws.
    """
    backend = rendering_backend()
    os.environ.update(_environment(backend))
    return backend


def _environment(backend: str) -> dict[str, str]:
    # MuJoCo refuses a PYOPENGL_PLATFORM left over from elsewhere that says something else.
    return {"MUJOCO_GL": backend} | ({"PYOPENGL_PLATFORM": backend} if backend in BACKENDS else {})


def _try_backend(backend: str) -> str | None:
    """Draws a frame in a process of its own: None when that went well, otherwise the reason."""
    try:
        result = subprocess.run(
            [sys.executable, "-m", "world4rl.machine"],
            env=os.environ | _environment(backend),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no frame within {PROBE_SECONDS} s"
    if result.returncode == 0:
        return None
    lines = result.stderr.strip().splitlines()
    return lines[-1][:200] if lines else f"the process ended with status {result.returncode}"


def _draw_one_frame() -> None:
    import mujoco

    scene = "<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='1' rgba='1 0 0 1'/></worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(scene)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, height=16, width=16) as renderer:
        renderer.update_scene(data)
        frame = renderer.render()
    if frame.max() == frame.min():
        raise SystemExit("the frame is blank")


def check_disk(folder: Path, gigabytes: float) -> None:
    """Makes sure that there is room before work begins.

    Args:
        folder: Any folder on the disk; it need not exist yet.
        gigabytes: Least free space, in 10^9 bytes.

    Raises:
        MachineError: there is less.
    """
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise MachineError(
            f"only {free:.1f} GB free, {gigabytes:g} GB needed",
            where=folder,
            remedy="free space on this disk, or work in a folder on another one",
        )


def use_threads(threads: int) -> None:
    """Limits the numeric libraries of this process to so many threads (0: as many as there are cores).

    Must come before numpy and torch are imported, whose pools read the environment once.
    """
    if threads > 0:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)


def select_device(choice: str) -> torch.device:
    """The torch device for `params.device`: `auto` takes a GPU when there is one.

    Raises:
        MachineError: a GPU is asked for and there is none.
    """
    import torch

    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "device is `cuda`, but torch sees no GPU", remedy="set `device: auto` or `device: cpu` in params.yaml"
        )
    return torch.device(choice, torch.cuda.current_device()) if choice == "cuda" else torch.device(choice)


def describe() -> dict[str, str | int | float]:
    """The machine in a few words: system, Python, processor, cores, memory in GB."""
    import psutil

    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def describe_fully() -> dict[str, Any]:
    """What a run record says about the machine: `describe`, how this process used it, driver and library versions.

    Imports nothing that the process did not import by itself, and takes milliseconds.
    """
    versions = {name: version for name in LIBRARIES if (version := _version(name)) is not None}
    threads = os.environ.get("OMP_NUM_THREADS")
    return {
        **describe(),
        "threads": int(threads) if threads and threads.isdigit() else os.cpu_count() or 1,
        "rendering": os.environ.get("MUJOCO_GL"),
        "gpu": _gpu(),
        "driver": _driver(),
        "libraries": versions,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> dict[str, Any] | None:
    """The graphics processor that this process may have used; None where it has not even looked for one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return {"name": torch.cuda.get_device_name(), "count": torch.cuda.device_count(), "cuda": torch.version.cuda}


def _driver() -> str | None:
    try:
        return NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    _draw_one_frame()
