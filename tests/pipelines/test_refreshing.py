"""The job that refreshes the world model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.refreshing import build_refresh_job
from tests.demos.test_collect import TASK, save_untrained_policy, small_params
from world4rl.config import dump_params
from world4rl.errors import ConfigError
from world4rl.landing.inbox import Inbox
from world4rl.paths import Paths


def test_it_lands_rollouts_of_the_refined_policy(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.params.write_text(dump_params(small_params()))
    job = build_refresh_job(tmp_path)
    with pytest.raises(ConfigError, match="no task 'another'"):
        job.execute_in_process(run_config={"ops": {"record_rollouts": {"config": {"task": "another"}}}})
    save_untrained_policy(paths.refined(TASK))
    job.execute_in_process(run_config={"ops": {"record_rollouts": {"config": {"task": TASK, "episodes": 1}}}})
    assert Inbox(str(tmp_path / "landing")).names() == [f"refresh-{TASK}-generation-2"]
