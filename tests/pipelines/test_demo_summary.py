"""The table that `make demo` ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.demo import summary
from world4rl.files import write_json
from world4rl.paths import Paths


@pytest.mark.parametrize(
    ("p_value", "shown"),
    [(0.5, " 0.500"), (0.0123, " 0.012"), (0.001, " 0.001"), (7.6e-6, " <0.001"), (0.0, " <0.001")],
)
def test_a_task_is_a_row_and_no_result_is_certain(tmp_path: Path, p_value: float, shown: str) -> None:
    paths = Paths(tmp_path)
    result = {
        "bc": {"successes": 9, "trials": 20},
        "refined": {"successes": 15, "trials": 20},
        "gain_points": 30.0,
        "gain_interval": [4.25, 51.0],
        "p_value": p_value,
    }
    write_json(paths.summary, {"tasks": {"door-lock-v3": result}})
    row = next(line for line in summary(paths, 61.0, 3).splitlines() if line.startswith("door-lock-v3"))
    assert row.endswith(shown)
    for figure in ("45 %", "75 %", "+30.0", "+4.2 to +51.0"):
        assert figure in row
