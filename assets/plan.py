"""What would run, in which order and why: said beforehand, from DVC's own decision about every stage.

A plan changes nothing. What it says about a stage is one of:

    runs       it is not up to date
    restores   it is not up to date, and DVC's cache has what it would make: nothing is computed
    follows    it runs if what it is made from comes out different, which only running that can tell
    busy       somebody is running it at this moment
    blocked    it is not up to date, but a check or something missing stands before it
    left       it is not up to date, but not part of what is asked for
    unchanged  it is up to date
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from assets.dvc_project import Change, DvcProject, Stage
from world4rl.config import Params, Retraining, load_params
from world4rl.errors import DataError
from world4rl.evaluation.gates import GATES, Gate
from world4rl.landing.gathered import Gathered, due, gather
from world4rl.landing.ledger import Ledger
from world4rl.paths import ROLES, Paths, Role
from world4rl.provenance.digests import digest_json
from world4rl.provenance.manifests import (
    ROLE_MANIFEST,
    RoleManifest,
    parse_role_manifest,
    read_acceptance,
    read_manifest,
)

Action = Literal["runs", "restores", "follows", "busy", "blocked", "left", "unchanged"]
GOING: tuple[Action, ...] = ("runs", "restores", "follows", "busy")
LANDED = "landed"  # the step that takes manifests up
EVALUATION = "evaluation"  # the step that judges the policies
NAMED = 3  # datasets or files that a reason names; the others are counted
VERSION_DIGITS = 12


@dataclass(frozen=True)
class Planned:
    """What becomes of a stage.

    Attributes:
        stage: The stage.
        action: See the module.
        reasons: Why, a clause each; empty for what is unchanged.
        needs: Names of the stages that have to be settled before it runs: what it is made from, and what guards it.
        change: What of it itself is not up to date; None for nothing.
    """

    stage: Stage
    action: Action
    reasons: tuple[str, ...]
    needs: frozenset[str]
    change: Change | None = None

    @property
    def going(self) -> bool:
        """Whether it is part of the work."""
        return self.action in GOING


@dataclass(frozen=True)
class Plan:
    """What becomes of every stage, inputs first.

    Attributes:
        tasks: Those that were asked for; None where everything was.
        stages: All stages.
    """

    tasks: frozenset[str] | None
    stages: tuple[Planned, ...]

    def of(self, *actions: Action) -> list[Planned]:
        """The stages with one of these actions."""
        return [planned for planned in self.stages if planned.action in actions]

    @property
    def going(self) -> list[Planned]:
        """The stages that are part of the work."""
        return self.of(*GOING)

    def __str__(self) -> str:
        """One line: how many stages go which way."""
        words: dict[Action, str] = {
            "runs": "run",
            "restores": "come back from DVC's cache",
            "follows": "follow if what they are made from changes",
            "busy": "are being run",
            "blocked": "are blocked",
            "left": "are left as they are",
            "unchanged": "are up to date",
        }
        counts = {word: len(self.of(action)) for action, word in words.items()}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "there are no stages"

    def rows(self) -> list[tuple[str, str, str]]:
        """Stage, action and reasons of all that is not up to date."""
        return [
            (planned.stage.name, planned.action, "; ".join(planned.reasons))
            for planned in self.stages
            if planned.action != "unchanged"
        ]


def plan_json(plan: Plan, waiting: Mapping[str, Gathered | None], rules: Retraining, now: float) -> dict[str, Any]:
    """A plan, and what has gathered, for machines.

    Args:
        plan: The plan.
        waiting: What has gathered of each task; None for nothing.
        rules: When that is enough.
        now: Seconds since 1970.
    """
    return {
        "tasks": None if plan.tasks is None else sorted(plan.tasks),
        "stages": [
            {
                "stage": planned.stage.name,
                "step": planned.stage.step,
                "task": planned.stage.task,
                "action": planned.action,
                "reasons": list(planned.reasons),
            }
            for planned in plan.stages
        ],
        "gathered": {
            task: None
            if found is None
            else {
                "version": found.version,
                "added": dict(found.added),
                "removed": found.removed,
                "datasets": list(found.datasets),
                "oldest": found.oldest,
                "due": due(found, rules, now).now,
                "why": due(found, rules, now).why,
            }
            for task, found in waiting.items()
        },
    }


def plan_text(plan: Plan, waiting: Mapping[str, Gathered | None], rules: Retraining, now: float) -> str:
    """A plan, and what has gathered, for people; arguments as for `plan_json`."""
    rows = plan.rows()
    name, action = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    lines = [f"{row[0]:<{name}}  {row[1]:<{action}}  {row[2]}" for row in rows]
    news = [due(found, rules, now).why if found else f"{task}: nothing new" for task, found in waiting.items()]
    return "\n".join([*lines, *([""] if lines else []), str(plan), f"landed: {'; '.join(news)}"])


def gathered(project: DvcProject, task: str, paths: Paths) -> Gathered | None:
    """What a task's manifest has that the stage `landed` has not taken up; None where it has taken up this manifest.

    Raises:
        DataError: the manifest or the ledger cannot be read.
    """
    stage = project.stage(LANDED, task)
    if not paths.manifest(task).is_file() or not project.source_changed(stage):
        return None
    return gather(
        read_manifest(paths.manifest(task)),
        _taken_up(project, stage, paths),
        Ledger(paths.ledger),
        paths,
        judged=project.recorded(project.stage(EVALUATION, task)) is not None,
    )


def make_plan(
    project: DvcProject,
    *,
    tasks: Iterable[str] | None = None,
    held: Iterable[str] = (),
    gates: Sequence[Gate] = GATES,
) -> Plan:
    """What would run now.

    Args:
        project: The stages.
        tasks: Bring up to date what belongs to these tasks, what serves all tasks, and what of other tasks these need
            and was never made. None: everything.
        held: Stages that are left as they are, whatever they need.
        gates: Checks that hold up what is made from what they judge.

    Raises:
        World4RLError: a file that says what there is cannot be read.
    """
    planner = _Planner(project, None if tasks is None else frozenset(tasks), frozenset(held), gates)
    while missing := planner.plan():
        planner.pulled |= missing
    return Plan(planner.tasks, tuple(planner.planned.values()))


@dataclass
class _Planner:
    project: DvcProject
    tasks: frozenset[str] | None
    held: frozenset[str]
    gates: Sequence[Gate]
    pulled: set[str] = field(default_factory=set)
    planned: dict[str, Planned] = field(default_factory=dict)
    moving: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = Paths(self.project.root)
        self.params: Params = load_params(self.paths.params)
        self.changes = self.project.changes()
        self._landed: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._verdicts: dict[tuple[str, str | None], str | None] = {}

    def plan(self) -> set[str]:
        """Plans every stage; returns those that have to be asked for besides, because they are missing."""
        self.planned, self.moving = {}, {}
        for stage in self.project.stages.values():
            self.planned[stage.name] = self._plan(stage, self.changes.get(stage.name))
        return {
            name
            for planned in self.planned.values()
            if planned.going
            for name in planned.stage.upstream
            if self.planned[name].action == "left" and self._is_absent(name) and name not in self.held
        }

    def _plan(self, stage: Stage, change: Change | None) -> Planned:
        coming = sorted({self.moving[path] for path in self.moving if any(_within(path, dep) for dep in stage.data)})
        guards = self._guards(stage)
        needs = stage.upstream | {guard.name for _, guard in guards}
        own = self._reasons(stage, change) if change else []
        reasons = [*own, *(f"{name} will change" for name in coming)]
        if not reasons:
            return Planned(stage, "unchanged", (), needs)
        if not self._asked_for(stage):
            return Planned(stage, "left", tuple(reasons), needs)
        obstacles = self._obstacles(stage, guards)
        if obstacles:
            return Planned(stage, "blocked", tuple(obstacles), needs)
        action: Action = "runs" if own else "follows"
        if change is not None and change.busy:
            action = "busy"
        elif change is not None and change.restored and not coming:
            action = "restores"
        if not (action == "restores" and change is not None and change.restored == "as it was"):
            self.moving |= dict.fromkeys(self._changing(stage, change, bool(coming)), stage.name)
        return Planned(stage, action, tuple(reasons), needs, change)

    def _asked_for(self, stage: Stage) -> bool:
        if stage.name in self.held:
            return False
        return self.tasks is None or stage.task is None or stage.task in self.tasks or stage.name in self.pulled

    def _guards(self, stage: Stage) -> list[tuple[Gate, Stage]]:
        """Checks that hold this stage up, with the stages that they judge."""
        return [
            (gate, judged)
            for gate in self.gates
            if stage.step not in gate.spares and gate.step in self.project.steps
            for judged in self.project.steps[gate.step].stages
            if judged.name in stage.upstream or (stage.step in gate.holds and judged.task in (None, stage.task))
        ]

    def _obstacles(self, stage: Stage, guards: Sequence[tuple[Gate, Stage]]) -> list[str]:
        found = []
        for gate, judged in guards:
            # One that is about to be made anew is judged when it is made.
            if judged.name in self.planned and not self.planned[judged.name].going:
                failure = self._failure(gate, judged)
                found += [f"check {gate.name} of {judged.name}: {failure}"] if failure else []
        for name in sorted(stage.upstream):
            if self.planned[name].action == "blocked":
                found.append(f"{name} is blocked")
            elif name in self.held and self._is_absent(name):
                found.append(f"{name} is missing and cannot be made")
        return found

    def _is_absent(self, name: str) -> bool:
        return name in self.changes and self.changes[name].absent

    def _failure(self, gate: Gate, judged: Stage) -> str | None:
        key = (gate.name, judged.task)
        if key not in self._verdicts:
            self._verdicts[key] = gate.failure(self.paths, self.params.gates, judged.task)
        return self._verdicts[key]

    def _reasons(self, stage: Stage, change: Change) -> list[str]:
        if change.busy:
            return ["somebody is running it, or a stage whose files it shares"]
        if change.never:
            return ["it never ran here"]
        reasons = ["its command is another one"] if change.command else []
        reasons += [f"{name}: {_short(before)} -> {_short(now)}" for name, (before, now) in change.parameters.items()]
        reasons += [f"code changed: {_some(change.code)}"] if change.code else []
        if change.sources:
            reasons.append(self._news(stage)[0] if stage.step == LANDED else f"changed: {_some(change.sources)}")
        quiet = [path for path in change.data if not any(_within(moved, path) for moved in self.moving)]
        reasons += [f"changed: {_some(quiet)}"] if quiet else []
        reasons += [f"missing: {_some(change.missing)}"] if change.missing else []
        reasons += [f"not what it made: {_some(change.outputs)}"] if change.outputs else []
        return reasons

    def _changing(self, stage: Stage, change: Change | None, coming: bool) -> tuple[str, ...]:
        """What the stage will make that may be different."""
        if change is None or not change.sources or stage.step != LANDED:
            return stage.outputs + stage.metrics
        if not (change.never or change.command or change.code or change.absent or coming):
            return self._news(stage)[1] + stage.metrics
        return stage.outputs + stage.metrics

    def _news(self, stage: Stage) -> tuple[str, tuple[str, ...]]:
        """How the manifest of a task moved, and which roles' folders that changes."""
        if stage.name not in self._landed:
            self._landed[stage.name] = self._read_news(stage)
        return self._landed[stage.name]

    def _read_news(self, stage: Stage) -> tuple[str, tuple[str, ...]]:
        assert stage.task is not None
        path = self.paths.manifest(stage.task)
        if not path.is_file():
            return "there is no manifest yet", stage.outputs
        manifest = read_manifest(path)
        before = _taken_up(self.project, stage, self.paths)
        moved = [role for role in ROLES if before[role] != manifest.roles[role]]
        found = gather(manifest, before, Ledger(self.paths.ledger), self.paths)
        names = [_name(dataset, self.paths) for dataset in found.datasets]
        old = _version({role: each.root for role, each in before.items() if each is not None})
        text = f"manifest moved from {old} to {manifest.version[:VERSION_DIGITS]}: {found}"
        folders = {self.paths.landed(stage.task, role).relative_to(self.paths.root).as_posix() for role in moved}
        return text + (f" from {_some(names)}" if names else ""), tuple(p for p in stage.outputs if p in folders)


def _taken_up(project: DvcProject, stage: Stage, paths: Paths) -> dict[Role, RoleManifest | None]:
    """What the stage `landed` of a task took up when it ran last, whatever lies in its folders now."""
    assert stage.task is not None
    found: dict[Role, RoleManifest | None] = {}
    for role in ROLES:
        folder = paths.landed(stage.task, role).relative_to(paths.root).as_posix()
        content = project.committed(stage, folder, ROLE_MANIFEST)
        found[role] = None if content is None else parse_role_manifest(content, f"{folder}/{ROLE_MANIFEST}")
    return found


def _version(roots: Mapping[Role, str]) -> str:
    return digest_json(roots)[:VERSION_DIGITS] if roots else "nothing"


def _name(dataset: str, paths: Paths) -> str:
    try:
        return read_acceptance(paths.accepted / f"{dataset}.json").name
    except DataError:
        return dataset


def _within(path: str, other: str) -> bool:
    """Whether one of two places lies in the other."""
    a, b = Path(path), Path(other)
    return a == b or a in b.parents or b in a.parents


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
