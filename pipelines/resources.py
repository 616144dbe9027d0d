"""The resources of the code location."""

from __future__ import annotations

from typing import Any

from assets.stage_runner import StageRunner


def build_resources() -> dict[str, Any]:
    """`dvc`: runs stages on this machine."""
    return {"dvc": StageRunner()}
