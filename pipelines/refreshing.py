"""The job that refreshes the world model: rollouts of the refined policy, landed like anybody's."""

from pathlib import Path
from typing import Literal

from dagster import Config, JobDefinition, MetadataValue, OpExecutionContext, in_process_executor, job, op
from pydantic import Field

from world4rl import machine
from world4rl.landing.inbox import open_inbox
from world4rl.paths import Paths
from world4rl.runner import prepared


class Rollouts(Config):
    """What is recorded."""

    task: str = Field(description="One of the tasks in params.yaml.")
    episodes: int | None = Field(default=None, description="How many; rollouts.policy where nothing is given.", gt=0)
    policy: Literal["refined", "champion"] = Field(default="refined", description="Whose rollouts.")


def build_refresh_job(root: Path) -> JobDefinition:
    """The job; what it lands is taken and trained on as everything that lands."""

    @op
    def record_rollouts(context: OpExecutionContext, config: Rollouts) -> None:
        with prepared("refresh", root, Path("params.yaml"), config.task) as params:
            machine.use_rendering_backend()
            from world4rl.generations.refreshing import refresh  # it loads more than the definitions need

            inbox = open_inbox(params.landing.address, root)
            name = refresh(params, Paths(root), inbox, config.task, which=config.policy, episodes=config.episodes)
        context.add_output_metadata({"landed as": MetadataValue.text(f"{inbox.address}/{name}")})

    @job(
        name="refresh",
        executor_def=in_process_executor,
        description="Records rollouts of the refined policy and lands them: the world model's next generation.",
    )
    def refresh_world_model() -> None:
        record_rollouts()

    return refresh_world_model
