"""Decides what retrains, and says why nothing does; `pipelines.automation` makes Dagster ask it.

A *round* is work that was asked for: by a batch of episodes (for their tasks), or by the nightly schedule or a person
(for everything). It is open until nothing in it is stale. At every tick the sensor looks at what DVC calls stale now
and asks for the next passages of the round: so it does not matter what happened to the runs of the tick before, and
when nothing is stale, nothing is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    RunsFilter,
)
from pydantic import BaseModel, ConfigDict, ValidationError

from assets import showing
from assets.dvc_project import DvcProject, Recorded
from assets.plan import LANDED, Plan, Planned, gathered, make_plan
from pipelines.attempts import KEY_TAG, Standing, standing
from pipelines.jobs import EVALUATING, PRIORITY_TAG, SHOWING, Other, Passage
from world4rl.config import Retraining, load_params
from world4rl.evaluation.gates import GATES
from world4rl.landing.gathered import Gathered, due
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_bytes, digest_file, digest_json

ROUND_TAG = "world4rl/round"
WHY_TAG = "world4rl/why"
RETRAIN = "retrain"
OFF = "retraining is off (retraining.enabled in params.yaml); the job `retrain` still works"
PLAN_KEY = AssetKey("plan")
DATA_VERSION_TAG = "dagster/data_version"
INPUT_VERSION_TAG = "dagster/input_data_version/"
SAID = 900  # characters of a reason on a run's tag
RUNS = 20  # newest of a job, which tell whether anything happened


class Round(BaseModel):
    """Work that was asked for and is not done.

    Attributes:
        tasks: It is for these, and for what serves all tasks; None: for everything.
        why: Who asked, or what had gathered.
        since: When, in seconds since 1970; attempts before do not count.
        by_hand: Whether a person asked: then it goes on where retraining is off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tasks: tuple[str, ...] | None
    why: str
    since: float
    by_hand: bool = False


class Quiet(BaseModel):
    """What the last look found, good for as long as nothing changes.

    Attributes:
        state: Of everything that a look depends on.
        why: Why there is nothing to ask for.
        until: When that ends by itself, in seconds since 1970; None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: str
    why: str
    until: float | None


class Memory(BaseModel):
    """What the sensor remembers: its cursor.

    Attributes:
        round: The open round.
        asked: The run of the job `retrain` that was heard last.
        quiet: What the last look found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    round: Round | None = None
    asked: str | None = None
    quiet: Quiet | None = None


@dataclass(frozen=True)
class Tick:
    """What a tick comes to.

    Attributes:
        requests: Runs to ask for.
        why: Why there are none, or that a round is done.
        memory: For the next tick.
        plan: What the runs are part of; None where there are none.
    """

    requests: Sequence[RunRequest]
    why: str
    memory: Memory
    plan: Plan | None = None


@dataclass
class _Group:
    """The work of a passage for a task.

    Attributes:
        passage: The passage.
        task: The task; None where it serves all.
        planned: Its stages that are part of the work.
        others: Its assets that are no stages and that do not have what they are made from now.
    """

    passage: Passage
    task: str | None
    planned: list[Planned] = dataclass_field(default_factory=list)
    others: list[Other] = dataclass_field(default_factory=list)

    @property
    def name(self) -> str:
        return self.passage.job if self.task is None else f"{self.passage.job} of {self.task}"

    @property
    def stages(self) -> list[str]:
        return [planned.stage.name for planned in self.planned]


class Retrainer:
    """Decides what to run.

    Args:
        root: The project's folder.
        passages: The jobs of the lineage, in their order.
    """

    def __init__(self, root: Path, passages: Sequence[Passage]) -> None:
        self.root = root
        self.paths = Paths(root)
        self.passages = passages
        self._read: tuple[str, DvcProject] | None = None
        self.tasks = frozenset(task for passage in passages for task in passage.tasks if task is not None)

    def tick(self, instance: DagsterInstance, memory: Memory | None, now: float) -> Tick:
        """Looks once.

        Args:
            instance: Where the runs are.
            memory: Of the tick before; None: there was none.
            now: Seconds since 1970.

        Raises:
            World4RLError: a file that says what there is cannot be read.
        """
        params = load_params(self.paths.params)
        unknown = sorted(set(params.tasks) - self.tasks)
        if unknown:
            why = f"params.yaml names {', '.join(unknown)}, which Dagster does not know yet: reload the code location"
            return Tick((), why, memory or Memory())
        project = self._project()
        memory = memory or self._remembered(instance)
        memory = self._listen(instance, memory, now)
        waiting = {task: gathered(project, task, self.paths) for task in params.tasks}
        notes = [OFF]
        if params.retraining.enabled:
            memory, notes = self._gather(waiting, params.retraining, memory, now)
        if memory.round is None or not (params.retraining.enabled or memory.round.by_hand):
            return Tick((), "; ".join(notes), memory.model_copy(update={"quiet": None}))
        early = _early(waiting, params.retraining, memory.round, now)
        state = self._state(instance, project, memory.round, early)
        quiet = memory.quiet
        if quiet is not None and quiet.state == state and (quiet.until is None or now < quiet.until):
            return Tick((), quiet.why, memory)
        return self._walk(instance, project, memory, early, state, notes, now)

    def stale(self, instance: DagsterInstance) -> tuple[Plan, list[str]]:
        """The plan for everything, and assets that are no stages and do not have what they are made from now."""
        plan = make_plan(self._project())
        behind = [
            _asset_name(other.key, task)
            for passage in self.passages
            for task in passage.tasks
            for other in passage.others
            if self._is_behind(instance, other, task)
        ]
        return plan, behind

    def ever_made(self) -> bool:
        """Whether any stage ever ran here."""
        return bool(self._project().all_recorded())

    def _project(self) -> DvcProject:
        """The stages, read again when what defines them changed: most ticks find nothing to do and cost little."""
        files = [self.root / "dvc.yaml", self.paths.params]
        state = digest_json([[path.stat().st_mtime_ns, path.stat().st_size] for path in files])
        if self._read is None or self._read[0] != state:
            self._read = (state, DvcProject(self.root))
        return self._read[1]

    def _remembered(self, instance: DagsterInstance) -> Memory:
        """What the newest run says, where the cursor was lost: a round that is done is closed at once."""
        for passage in self.passages:
            for run in instance.get_runs(RunsFilter(job_name=passage.job), limit=RUNS):
                if ROUND_TAG in run.tags:
                    return Memory(round=Round.model_validate_json(run.tags[ROUND_TAG]))
        return Memory()

    def _listen(self, instance: DagsterInstance, memory: Memory, now: float) -> Memory:
        """Opens the round that the newest run of the job `retrain` asks for."""
        done = RunsFilter(job_name=RETRAIN, statuses=[DagsterRunStatus.SUCCESS])
        newest = next(iter(instance.get_runs(done, limit=1)), None)
        if newest is None or newest.run_id == memory.asked:
            return memory
        by_hand = WHY_TAG not in newest.tags  # the schedule says why
        why = newest.tags.get(WHY_TAG, f"asked for by run {newest.run_id[:8]}")
        opened = Round(tasks=None, why=why, since=now, by_hand=by_hand)
        return Memory(round=opened, asked=newest.run_id)

    def _gather(
        self, waiting: Mapping[str, Gathered | None], rules: Retraining, memory: Memory, now: float
    ) -> tuple[Memory, list[str]]:
        """Opens or widens the round for tasks of which enough has gathered; says what of the others has."""
        reasons, notes = dict[str, str](), list[str]()
        for task, found in waiting.items():
            verdict = None if found is None else due(found, rules, now)
            if verdict is None:
                notes.append(f"{task}: nothing new")
            elif verdict.now:
                reasons[task] = verdict.why
            else:
                notes.append(verdict.why)
        opened = memory.round
        if opened is None and reasons:
            opened = Round(tasks=tuple(reasons), why="; ".join(reasons.values()), since=now)
        elif opened is not None and opened.tasks is not None and set(reasons) - set(opened.tasks):
            new = [task for task in reasons if task not in opened.tasks]
            why = "; ".join([opened.why, *(reasons[task] for task in new)])
            opened = Round(tasks=(*opened.tasks, *new), why=why, since=opened.since)
        return memory.model_copy(update={"round": opened}), notes

    def _state(self, instance: DagsterInstance, project: DvcProject, opened: Round, early: Iterable[str]) -> str:
        """Changes whenever a look could find something else than before, outputs that people move about apart."""
        code = {path for stage in project.stages.values() for path in stage.code + stage.sources}
        files = [self.root / name for name in ("dvc.lock", "dvc.yaml", "params.yaml", *sorted(code))]
        runs = {
            passage.job: [
                [record.dagster_run.run_id, record.dagster_run.status.value]
                for record in instance.get_run_records(RunsFilter(job_name=passage.job), limit=RUNS)
            ]
            for passage in self.passages
        }
        times = [[str(path), path.stat().st_mtime_ns if path.exists() else 0] for path in files]
        return digest_json([opened.model_dump(), sorted(early), times, runs])

    def _walk(
        self,
        instance: DagsterInstance,
        project: DvcProject,
        memory: Memory,
        early: Set[str],
        state: str,
        notes: Sequence[str],
        now: float,
    ) -> Tick:
        """Asks for the passages of the round that can run now; of `early` tasks not for what has just landed."""
        opened = memory.round
        assert opened is not None
        recorded = project.all_recorded()
        held, stopped = set[str](), list[str]()
        while True:
            plan = make_plan(project, tasks=opened.tasks, held=held)
            groups = self._groups(instance, project, plan, opened)
            too_early = {name for group in groups if _is_early(group, early) for name in group.stages} - held
            if too_early:
                held |= too_early
                continue
            found = [
                (group, self._standing(instance, project, recorded, group, groups, opened, now)) for group in groups
            ]
            given_up = [(group, at) for group, at in found if at.state == "stop" and not held.issuperset(group.stages)]
            if not given_up:
                break
            for group, at in given_up:  # the rest goes on without them
                held.update(group.stages)
                stopped.append(f"{group.name} {at.why}")
        requests = [_request(group, opened, at) for group, at in found if at.state == "go"]
        if requests:
            return Tick(requests, "", memory.model_copy(update={"quiet": None}), plan)
        waiting = [f"{group.name} {at.why}" for group, at in found]
        blocked = [f"{p.stage.name} is held back: {'; '.join(p.reasons)}" for p in plan.of("blocked")]
        rest = [*waiting, *stopped, *blocked, *self._blocked_others(instance, project, plan, opened)]
        if not rest:
            why = "; ".join([f"done: {opened.why}", *notes])
            return Tick((), why, memory.model_copy(update={"round": None, "quiet": None}))
        why = "; ".join([f"retraining ({opened.why})", *rest])
        until = min((at.until for _, at in found if at.state == "later"), default=None)
        return Tick((), why, memory.model_copy(update={"quiet": Quiet(state=state, why=why, until=until)}))

    def _standing(
        self,
        instance: DagsterInstance,
        project: DvcProject,
        recorded: Mapping[str, Recorded],
        group: _Group,
        groups: Sequence[_Group],
        opened: Round,
        now: float,
    ) -> Standing:
        """Whether a group may be run now."""
        before = _before(group, groups)
        if before:
            return Standing("running", f"waits for {', '.join(before)}")
        key = self._key(project, recorded, group)
        at = standing(instance, group.passage.job, group.task, key, since=opened.since, now=now)
        if at.state != "running" and any(planned.action == "busy" for planned in group.planned):
            # Until now: it is looked at again at every tick. One that is run by hand and fails leaves no trace.
            return Standing("later", "waits: somebody is running a stage of it", until=now)
        return at

    def _groups(self, instance: DagsterInstance, project: DvcProject, plan: Plan, opened: Round) -> list[_Group]:
        """What there is to do, a passage and task at a time."""
        found, going = [], {planned.stage.name for planned in plan.going}
        for passage in self.passages:
            for task in passage.tasks:
                group = _Group(
                    passage,
                    task,
                    [p for p in plan.going if p.stage.step in passage.steps and p.stage.task == task],
                )
                for other in passage.others:
                    before = _stage_names(project, other.steps, task)
                    behind = self._wanted(opened, task) and self._is_behind(instance, other, task)
                    ready = behind and not before & going and not self._obstacles(other, task)
                    if ready or before.intersection(group.stages):
                        group.others.append(other)
                if group.planned or group.others:
                    found.append(group)
        return found

    def _wanted(self, opened: Round, task: str | None) -> bool:
        return opened.tasks is None or task is None or task in opened.tasks

    def _obstacles(self, other: Other, task: str | None) -> list[str]:
        """Checks that hold up an asset that is no stage."""
        bounds = load_params(self.paths.params).gates
        return [
            f"check {gate.name} of {gate.step}: {why}"
            for gate in GATES
            if gate.step in other.steps
            and other.key.path[-1] not in gate.spares
            and (why := gate.failure(self.paths, bounds, task)) is not None
        ]

    def _blocked_others(self, instance: DagsterInstance, project: DvcProject, plan: Plan, opened: Round) -> list[str]:
        going = {planned.stage.name for planned in plan.going}
        return [
            f"{_asset_name(other.key, task)} is held back: {'; '.join(obstacles)}"
            for passage in self.passages
            for task in passage.tasks
            if self._wanted(opened, task)
            for other in passage.others
            if not _stage_names(project, other.steps, task) & going
            and self._is_behind(instance, other, task)
            and (obstacles := self._obstacles(other, task))
        ]

    def _is_behind(self, instance: DagsterInstance, other: Other, task: str | None) -> bool:
        """Whether an asset that is no stage was not made from the newest of what it is made from."""
        own = _newest(instance, other.key, task)
        for source, partitioned in other.sources.items():
            made = _newest(instance, source, task if partitioned else None)
            if made is None:
                continue
            version = made.get(DATA_VERSION_TAG, "")
            if partitioned:  # Dagster sums the versions of the partitions up, also of a single one
                version = digest_bytes(version.encode())
            if own is None or own.get(INPUT_VERSION_TAG + source.to_user_string()) != version:
                return True
        return False

    def _key(self, project: DvcProject, recorded: Mapping[str, Recorded], group: _Group) -> str:
        """Names what the passage is made from: its code, its parameters, and the versions of all that comes in.

        It stays the same while the passage is under way, so that attempts can be counted.
        """
        stages = [project.stage(step, group.task) for step in group.passage.steps]
        own = {stage.name for stage in stages}
        inputs = {name for stage in stages for name in stage.upstream}
        inputs |= {name for other in group.others for name in _stage_names(project, other.steps, group.task)}
        inputs -= own
        sources = {path: project.root / path for stage in stages for path in stage.sources}
        return digest_json(
            {
                "code": {stage.name: project.code_version(stage) for stage in stages},
                "inputs": {name: recorded[name].data_version for name in sorted(inputs) if name in recorded},
                "sources": {name: digest_file(path) for name, path in sources.items() if path.is_file()},
            }
        )[:16]


def _early(waiting: Mapping[str, Gathered | None], rules: Retraining, opened: Round, now: float) -> frozenset[str]:
    """Tasks of which episodes wait that are not part of a round: they came after it began, and are no batch yet."""
    return frozenset(
        task
        for task, found in waiting.items()
        if found is not None
        and not (rules.enabled and due(found, rules, now).now)
        and (opened.tasks is not None or (found.oldest or 0.0) > opened.since)
    )


def _is_early(group: _Group, early: Set[str]) -> bool:
    """Whether a group has nothing to do but to take up what landed of an early task."""
    takes_up = any(planned.stage.step == LANDED for planned in group.planned)
    if group.task is None or group.task not in early or not takes_up:
        return False
    folder = Paths(Path()).landed(group.task).as_posix()
    return all(planned.change is None or planned.change.only_below(folder) for planned in group.planned)


def read_memory(cursor: str | None) -> Memory | None:
    """What a cursor holds; None where it is empty or of another version of this program."""
    try:
        return Memory.model_validate_json(cursor) if cursor else None
    except ValidationError:
        return None


def plan_rows(plan: Plan, behind: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """What a plan does not leave as it is, and why: stages, then assets that are none (`Retrainer.stale`)."""
    return [*plan.rows(), *((name, "runs", "what it is made from changed") for name in behind)]


def plan_metadata(plan: Plan, why: str, behind: Sequence[str] = ()) -> dict[str, Any]:
    """The plan as Dagster shows it."""
    rows = plan_rows(plan, behind)
    return {
        "asked for by": why,
        "in short": str(plan),
        "plan": showing.table(["what", "", "why"], rows or [("nothing", None, None)]),
    }


def plan_event(plan: Plan, why: str, behind: Sequence[str] = ()) -> AssetMaterialization:
    """The plan of what somebody asked for."""
    return AssetMaterialization(PLAN_KEY, description=why, metadata=plan_metadata(plan, why, behind))


def _before(group: _Group, groups: Sequence[_Group]) -> list[str]:
    """Other groups that have to be done first."""
    needs = {name for planned in group.planned for name in planned.needs}
    return [other.name for other in groups if other is not group and needs.intersection(other.stages)]


def _request(group: _Group, opened: Round, at: Standing) -> RunRequest:
    keys = [group.passage.steps[planned.stage.step] for planned in group.planned]
    keys += [other.key for other in group.others]
    said = "; ".join(
        f"{planned.stage.name} {planned.action}: {', '.join(planned.reasons)}" for planned in group.planned
    )
    tags = {KEY_TAG: at.key, ROUND_TAG: opened.model_dump_json(), WHY_TAG: _cut(f"{opened.why}. {said}")}
    if all(planned.stage.step in EVALUATING for planned in group.planned):
        tags[PRIORITY_TAG] = SHOWING
    return RunRequest(
        run_key=f"{group.name}:{at.key}:{at.after}",  # not how many there were: people delete runs
        job_name=group.passage.job,
        partition_key=group.task,
        asset_selection=keys,
        tags=tags,
    )


def _newest(instance: DagsterInstance, key: AssetKey, task: str | None) -> Mapping[str, str] | None:
    """Tags of an asset's newest materialisation for a task; None where there is none."""
    wanted = AssetRecordsFilter(asset_key=key, asset_partitions=None if task is None else [task])
    records = instance.fetch_materializations(wanted, limit=1).records
    made = records[0].asset_materialization if records else None
    return None if made is None else made.tags or {}


def _stage_names(project: DvcProject, steps: Iterable[str], task: str | None) -> set[str]:
    """The stages of steps that concern a task, those that serve all tasks included."""
    return {name for step in steps for name in (step, f"{step}@{task}") if name in project.stages}


def _asset_name(key: AssetKey, task: str | None) -> str:
    return key.to_user_string() if task is None else f"{key.to_user_string()}@{task}"


def _cut(text: str) -> str:
    return text if len(text) <= SAID else f"{text[: SAID - 3]}..."
