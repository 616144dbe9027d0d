"""A made-up repository: real records, decisions, manifests and episode sets about small files that nothing trained.

For whoever needs a lineage and has no hour to wait for one: the audit's benchmark, its tests, the pictures in docs/.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from world4rl.files import write_json, write_text
from world4rl.paths import ROLES, Paths, Role
from world4rl.promotion.champions import keep, subjects_of
from world4rl.provenance import keys
from world4rl.provenance.decisions import Decision, Decisions, Deployment, Promotion, Withdrawal
from world4rl.provenance.digests import digest_bytes, digest_file, digest_files, digest_folder, digest_json
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode, write_episode_set
from world4rl.provenance.manifests import (
    ROLE_MANIFEST,
    Acceptance,
    LandedEpisode,
    read_manifest,
    write_acceptance,
    write_manifests,
)
from world4rl.provenance.records import Chain, Code, Record, Run, Subject, subject
from world4rl.provenance.signatures import sign_model
from world4rl.provenance.statement import Statement

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
SPLITS = ("train", "train", "train", "validation", "test")


@dataclass(frozen=True)
class Step:
    """What `dvc.yaml` says of a step, with `{task}` for the task.

    Attributes:
        name: Of the step.
        inputs: Files and folders that it reads.
        outputs: Folders that it makes.
        figures: Single files that it makes.
        stores: Of its outputs: the roles whose episodes they hold.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    figures: tuple[str, ...] = ()
    stores: Mapping[str, Role] = field(default_factory=dict)

    @property
    def shared(self) -> bool:
        """Whether it serves all tasks."""
        return not any("{task}" in output for output in self.outputs)


STORE, LANDED, RAW = "data/store/{task}/", "data/landed/{task}/", "data/raw/{task}/"
BEFORE = (
    Step("demos", (), (RAW + "expert",), ("reports/data/{task}/collect-expert.json",)),
    Step("landed", ("data/manifests/{task}.json",), tuple(LANDED + role for role in ROLES)),
    Step(
        "demo_store",
        (RAW + "expert", LANDED + "expert"),
        (STORE + "expert",),
        ("reports/data/{task}/expert.json",),
        {STORE + "expert": "expert"},
    ),
    Step("bc", (STORE + "expert",), ("models/{task}/bc",), ("reports/bc/{task}.json",)),
    Step("policy_rollouts", ("models/{task}/bc",), (RAW + "policy",)),
    Step("random_rollouts", (), (RAW + "random",)),
    Step(
        "rollout_store",
        (RAW + "policy", RAW + "random", LANDED + "policy", LANDED + "random"),
        (STORE + "policy", STORE + "random"),
        ("reports/data/{task}/rollouts.json",),
        {STORE + "policy": "policy", STORE + "random": "random"},
    ),
)
SHARED = (
    Step("world_model", ("data/store",), ("models/world_model",), ("reports/world_model.json",)),
    Step("success_classifier", ("data/store", "models/world_model"), ("models/success_classifier",)),
    Step("fidelity", ("data/store", "models/world_model", "models/success_classifier"), ("reports/fidelity",)),
)
AFTER = (
    Step(
        "refined",
        ("data/store/{task}", "models/{task}/bc", "models/world_model", "models/success_classifier"),
        ("models/{task}/refined",),
        ("reports/refined/{task}.json",),
    ),
    Step(
        "evaluation",
        ("models/{task}/bc", "models/{task}/refined", "models/world_model", "models/success_classifier"),
        ("reports/evaluation/{task}",),
        ("reports/evaluation/{task}.json",),
    ),
)
REPORT = Step("report", ("reports/data", "reports/bc", "reports/evaluation", "reports/fidelity"), ("reports/page",))


class MadeUp:
    """The repository.

    Args:
        root: Its folder.
        tasks: Its tasks.
        seed: For the contents.
        collected: Episodes that the simulator recorded, a task and role.
    """

    def __init__(self, root: Path, tasks: Sequence[str], *, seed: int = 0, collected: int = 4) -> None:
        self.paths = Paths(root)
        self.tasks = tuple(tasks)
        self.private = root.parent / f"{root.name}-private.pem"
        self.now = FIRST
        self._seed, self._collected = seed, collected
        self._inputs: dict[str, str] = {}
        self._chain = Chain(self.paths.records, (Run,))
        root.mkdir(parents=True, exist_ok=True)
        keys.make_keys(self.private, self.paths.trusted_keys / "ada.pem")
        self.set_parameters(seed=seed)
        self.write_manifests()

    def at(self, root: Path) -> MadeUp:
        """The same repository, copied elsewhere."""
        other = copy.copy(self)
        other.paths, other._chain = Paths(root), Chain(Paths(root).records, (Run,))
        other._inputs = dict(self._inputs)
        return other

    def set_parameters(self, **values: object) -> None:
        """Writes params.yaml."""
        write_json(self.paths.params, {"tasks": list(self.tasks), **values})  # JSON is YAML
        self._parameters = {"tasks": list(self.tasks), **values}

    def land(
        self, tasks: Sequence[str], episodes: int, *, role: Role = "expert", manifests: bool = True, **said: str
    ) -> Acceptance:
        """Accepts a dataset of some episodes a task.

        Args:
            tasks: Its tasks.
            episodes: How many of each.
            role: What they are.
            manifests: Whether to bring the manifests up to date at once; else `write_manifests` does it later.
            said: Fields of the statement.
        """
        number = len(list(self.paths.accepted.glob("*.json")))
        content = f"dataset {number} of {self._seed}"
        digest = digest_files({"data/frames.bin": digest_bytes(content.encode())})
        landed = tuple(
            LandedEpisode(
                episode=index,
                task=task,
                length=50,
                success=index % 3 > 0,
                digest=digest_json([digest, index]),
            )
            for index, task in enumerate(task for task in tasks for _ in range(episodes))
        )
        statement = Statement(source=role, **said)
        accepted = Acceptance(
            id=digest[:16], name=f"dataset_{number}", digest=digest, statement=statement, episodes=landed
        )
        for task in tasks:
            write_text(self.paths.landed(task, role) / accepted.id / "data" / "frames.bin", content)
        write_acceptance(accepted, self.paths)
        if manifests:
            self.write_manifests()
        return accepted

    def repro(self, *, without: Sequence[str] = ()) -> list[str]:
        """Runs every stage whose inputs are others than at its last run; returns their names.

        Args:
            without: Steps that stay as they are.
        """
        ran = []
        for step, task in self._stages():
            name = step.name if task is None else f"{step.name}@{task}"
            inputs = [place.format(task=task) for place in step.inputs]
            state = digest_json([[place, self.digest(place)] for place in inputs] + [self._parameters])
            if step.name not in without and self._inputs.get(name) != state:
                self._inputs[name] = state
                self.run(step, task)
                ran.append(name)
        return ran

    def run(self, step: Step, task: str | None) -> Record[Run]:
        """Runs a stage and writes its record."""
        inputs = [subject(place, self.digest(place)) for place in (p.format(task=task) for p in step.inputs)]
        episodes = {}
        if step.name == "landed" and task is not None:
            self._put_role_manifests(task)
        else:
            for place in step.outputs:
                sets = self._sets(step.stores[place], task) if place in step.stores and task else []
                self._make(place.format(task=task), step, inputs, sets)
                if sets:
                    episodes[place.format(task=task)] = tuple(write_episode_set(each, self.paths) for each in sets)
        for place in step.figures:
            figures = {"seconds": 60.0, "made by": digest_json([s.sha256 for s in inputs])}
            write_json(self.paths.root / place.format(task=task), figures)
        places = [place.format(task=task) for place in (*step.outputs, *step.figures)]
        for place in places:
            if place.startswith("models/"):
                sign_model(self.paths.root / place, self.digest(place), self.private, self.paths)
        return self.record(
            step.name if task is None else f"{step.name}@{task}",
            inputs=inputs,
            outputs=[subject(place, self.digest(place)) for place in places],
            episodes=episodes,
        )

    def record(
        self,
        stage: str,
        *,
        inputs: Sequence[Subject],
        outputs: Sequence[Subject],
        episodes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Record[Run]:
        """Writes the record of a run, about the files that lie there now."""
        began = self.tick()
        run = Run(
            stage=stage,
            command=f"world4rl {stage.replace('@', ' --task ')}",
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            episodes=dict(episodes or {}),
            parameters=self._parameters,
            code=Code(commit="5" * 40, dirty=False, digest=digest_json(stage.split("@")[0]), lock=digest_json("lock")),
            machine={"cores": 2, "gpu": "none", "torch": "2.11.0"},
            began=began,
            ended=self.tick(minutes=30),
            metrics={"loss": 0.25},
            orchestrator=f"run-{stage}",
        )
        return self._chain.append([each for output in outputs for each in self.files(output.name)], run)

    def promote(self, task: str, by: str = "gate") -> str:
        """Makes the refined policy of a task its champion, and keeps its bytes; returns its digest."""
        policy = self.digest(f"models/{task}/refined")
        kept = subjects_of(self.paths, keep(self.paths.refined(task), policy, self.paths, task))
        said = Promotion(task=task, policy=policy, replaces=None, evidence={"gain": 12.0}, **self._said(by))
        self.decide(said, kept)
        return policy

    def deploy(self, robot: str, task: str, policy: str | None, by: str = "ben") -> None:
        """A robot runs a policy from now on."""
        self.decide(Deployment(robot=robot, task=task, policy=policy, **self._said(by)))

    def withdraw(self, episodes: Sequence[str], datasets: Sequence[str] = (), affected: Sequence[Subject] = ()) -> None:
        """Withdraws episodes; removes nothing."""
        self.decide(
            Withdrawal(
                episodes=tuple(episodes),
                datasets=tuple(datasets),
                affected=tuple(affected),
                deployments=(),
                **self._said("ada"),
            )
        )

    def decide(self, decision: Decision, subjects: Sequence[Subject] = ()) -> None:
        """Signs a decision."""
        Decisions(self.paths).add(subjects, decision, self.private)

    def digest(self, place: str) -> str:
        """Digest of a file or folder, as run records name it."""
        path = self.paths.root / place
        return digest_folder(path) if path.is_dir() else digest_file(path)

    def files(self, place: str) -> Iterator[Subject]:
        """The single files of an output."""
        path = self.paths.root / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield subject(file.relative_to(self.paths.root).as_posix(), digest_file(file))

    def tick(self, minutes: int = 1) -> str:
        """Lets time pass."""
        self.now += timedelta(minutes=minutes)
        return self.now.isoformat().replace("+00:00", "Z")

    def _said(self, by: str) -> dict[str, str]:
        return {"at": self.tick(), "by": by, "because": "it is better"}

    def _stages(self) -> Iterator[tuple[Step, str | None]]:
        for steps in (BEFORE, SHARED, AFTER, (REPORT,)):
            for task in (None,) if steps[0].shared else self.tasks:
                for step in steps:
                    yield step, task

    def write_manifests(self) -> None:
        """Brings the manifests up to date."""
        write_manifests(self.tasks, self.paths)

    def _put_role_manifests(self, task: str) -> None:
        manifest = read_manifest(self.paths.manifest(task))
        for role in ROLES:
            write_json(self.paths.landed(task, role) / ROLE_MANIFEST, manifest.roles[role].model_dump(mode="json"))

    def _make(self, place: str, step: Step, inputs: Sequence[Subject], sets: Sequence[EpisodeSet]) -> None:
        draw = random.Random(digest_json([step.name, place, [each.sha256 for each in inputs], self._parameters]))
        folder = self.paths.root / place
        for name in [each.dataset for each in sets] or ["."]:
            write_text(folder / name / "config.json", f'{{"step": "{step.name}"}}\n')
            write_text(folder / name / "model.safetensors", draw.randbytes(32).hex())

    def _sets(self, role: Role, task: str) -> list[EpisodeSet]:
        found = read_manifest(self.paths.manifest(task)).roles[role].datasets
        landed = [(one.id, one.statement, [(e.episode, e.digest, e.success) for e in one.episodes]) for one in found]
        own = Statement(source=role, robot_id="simulator")
        collected = [(i, digest_json(["simulated", self._seed, role, task, i]), True) for i in range(self._collected)]
        sources: list[tuple[str, Statement, Sequence[tuple[int, str, bool | None]]]] = [("collected", own, collected)]
        return [
            EpisodeSet(
                dataset=name,
                statement=statement,
                episodes=tuple(
                    MemberEpisode(
                        episode=index,
                        # What training sees is smaller than what landed: another content.
                        digest=digest_bytes(digest.encode()),
                        task=task,
                        length=50,
                        success=success,
                        split=SPLITS[index % len(SPLITS)],
                    )
                    for index, digest, success in members
                ),
            )
            for name, statement, members in [*sources, *landed]
        ]


def three_generations(root: Path, tasks: Sequence[str], *, episodes: int = 3) -> MadeUp:
    """A lineage in which the world model was made anew twice from rollouts of the policies that it had refined.

    Args:
        root: Of the repository.
        tasks: At least two.
        episodes: A landed dataset's, a task.
    """
    made = MadeUp(root, tasks)
    people = ("ada", "ben", "cleo")
    for number, task in enumerate(tasks):
        operator = people[number % len(people)]
        made.land([task], episodes, operator=operator, robot_id="arm-1", licence="CC-BY-4.0", consent="training")
    for generation in range(3):
        made.repro()
        for number, task in enumerate(tasks):
            policy = made.promote(task)
            if number % 2 == 0:
                made.deploy(f"arm-{number + 1}", task, policy)
            if generation < 2:
                robot = f"arm-{number + 1}"
                made.land(
                    [task], episodes, role="policy", policy=policy, operator="ada", robot_id=robot, consent="training"
                )
    return made
