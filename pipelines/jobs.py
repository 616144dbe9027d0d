"""The four passages of the lineage, and what follows from it: who is champion.

One run serves one task, or all of them together: so the lineage is walked in four jobs, of which the first and the
third run once a task. Within a run the stages follow each other in one process. The only branch (random rollouts) is
short, and a process a step would spend two seconds on imports each time.
"""

from __future__ import annotations

from dagster import define_asset_job, in_process_executor

COLLECT = define_asset_job(
    "collect",
    selection="+key:rollout_store",
    executor_def=in_process_executor,
    description="Demonstrations, the cloned policy, and its rollouts, for one task.",
)
IMAGINE = define_asset_job(
    "imagine",
    selection="key:world_model or key:success_classifier or key:fidelity",
    executor_def=in_process_executor,
    description="World model and success classifier of all tasks, and how far they can be trusted.",
)
REFINE = define_asset_job(
    "refine",
    selection="key:refined or key:evaluation",
    executor_def=in_process_executor,
    description="Refinement in imagination, and the simulator's verdict, for one task.",
)
REPORT = define_asset_job(
    "write_report",
    selection="key:report",
    executor_def=in_process_executor,
    description="The report over all tasks.",
)
PROMOTE = define_asset_job(
    "promote",
    selection="key:champion",
    executor_def=in_process_executor,
    description="The refined policy of one task against its champion.",
)
JOBS = (COLLECT, IMAGINE, REFINE, REPORT, PROMOTE)
