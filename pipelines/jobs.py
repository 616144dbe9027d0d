"""The passages of the lineage: four that make what `dvc.yaml` names, and one that decides who is champion.

One run serves one task, or all of them together: so the lineage is walked in five jobs, three of which run once a
task. Within a run the stages follow each other in one process. The only branch (random rollouts) is short, and a
process a step would spend two seconds on imports each time.

Runs that wait go by priority: what has begun is ended before something else begins, so evaluation and report come
before training, and taking a landed dataset (`pipelines.landing`), which takes seconds, before all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dagster import AssetKey, AssetsDefinition, AssetSelection, AssetSpec, define_asset_job, in_process_executor
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

PASSAGE_TAG = "world4rl/passage"  # on every run of a passage: the queue lets so many of them run at once
PRIORITY_TAG = "dagster/priority"
TAKING, SHOWING, REFINING, IMAGINING, COLLECTING = "50", "40", "30", "20", "10"
EVALUATING = frozenset({"evaluation", "report"})  # steps whose runs go before those that train


def _passage(
    name: str, selection: str | AssetSelection, priority: str, description: str
) -> UnresolvedAssetJobDefinition:
    return define_asset_job(
        name,
        selection=selection,
        executor_def=in_process_executor,
        description=description,
        tags={PASSAGE_TAG: name, PRIORITY_TAG: priority},
    )


COLLECT = _passage(
    "collect",
    "+key:rollout_store",
    COLLECTING,
    "Demonstrations, the cloned policy, and its rollouts, for one task.",
)
IMAGINE = _passage(
    "imagine",
    "key:world_model or key:success_classifier or key:fidelity",
    IMAGINING,
    "World model and success classifier of all tasks, and how far they can be trusted.",
)
REFINE = _passage(
    "refine",
    "key:refined+ and not (key:report or key:champion+)",
    REFINING,
    "Refinement in imagination, the simulator's verdict and what follows from it, for one task.",
)
# On its own, so that no blocking check of the run before stops it: a challenger that a check does not pass is kept back
# by a signed decision that says so.
PROMOTE = _passage("promote", "key:champion+", SHOWING, "The refined policy challenges the champion, for one task.")
REPORT = _passage("write_report", "key:report", SHOWING, "The report over all tasks.")
JOBS = (COLLECT, IMAGINE, REFINE, PROMOTE, REPORT)


@dataclass(frozen=True)
class Other:
    """An asset of the lineage that is no step.

    Attributes:
        key: Its key.
        steps: That it is made from, directly or through other assets that are no steps.
        sources: What it is made from directly, and whether that has a partition a task.
    """

    key: AssetKey
    steps: frozenset[str]
    sources: Mapping[AssetKey, bool]


@dataclass(frozen=True)
class Passage:
    """A job of the lineage, and what it is made of.

    Attributes:
        job: Its name.
        steps: Asset keys of its steps of `dvc.yaml`, by step.
        others: Its assets that are no steps.
        tasks: Its partitions; (None,) where it serves all tasks.
    """

    job: str
    steps: Mapping[str, AssetKey]
    others: tuple[Other, ...]
    tasks: tuple[str | None, ...]


def passages(assets: Iterable[AssetsDefinition], steps: Mapping[AssetKey, str]) -> list[Passage]:
    """The passages in their order.

    Args:
        assets: All assets.
        steps: The step of each asset that runs one.
    """
    definitions = list(assets)
    specs = {spec.key: spec for definition in definitions for spec in definition.specs}
    found = []
    for job in JOBS:
        selected = job.selection.resolve(definitions, allow_missing=True)
        keys = [key for key in specs if key in selected]
        if not keys:  # a translator renamed them, or there are none: their owner has jobs of their own
            continue
        own = {steps[key]: key for key in keys if key in steps}
        partitions = [specs[key].partitions_def for key in keys]
        tasks = partitions[0].get_partition_keys() if partitions[0] is not None else [None]
        others = tuple(_other(key, specs, steps) for key in keys if key not in steps)
        found.append(Passage(job.name, own, others, tuple(tasks)))
    return found


def _other(key: AssetKey, specs: Mapping[AssetKey, AssetSpec], steps: Mapping[AssetKey, str]) -> Other:
    direct = [dep.asset_key for dep in specs[key].deps if dep.asset_key in specs]
    sources = {source: specs[source].partitions_def is not None for source in direct}
    return Other(key, _steps_before(key, specs, steps), sources)


def _steps_before(key: AssetKey, specs: Mapping[AssetKey, AssetSpec], steps: Mapping[AssetKey, str]) -> frozenset[str]:
    found = set[str]()
    for dep in specs[key].deps:
        if dep.asset_key in steps:
            found.add(steps[dep.asset_key])
        elif dep.asset_key in specs:
            found |= _steps_before(dep.asset_key, specs, steps)
    return frozenset(found)
