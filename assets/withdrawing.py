"""`world4rl withdraw`: shows what a withdrawal would do, and carries it out from the workspace to the last remote.

The signed decision comes first. All that follows is derived from the tombstones and may be done twice, so a process
that was killed anywhere leaves something that the same command finishes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assets.auditing import pages
from assets.dvc_project import DvcProject, Stage
from assets.lineage_ref import commit_lineage, push_lineage
from assets.purge import Found, Storages
from assets.recording import record_project
from assets.reproducing import discard_abandoned
from world4rl import progress
from world4rl.audit.book import read_book
from world4rl.audit.versions import history_of
from world4rl.config import Params, load_params
from world4rl.errors import DataError
from world4rl.files import locked
from world4rl.landing.inbox import open_inbox
from world4rl.paths import Paths
from world4rl.promotion.champions import champion_folders
from world4rl.promotion.history import History, read_history, stamp, utc_now
from world4rl.provenance import keys
from world4rl.provenance.decisions import Decisions, Withdrawal
from world4rl.provenance.digests import digest_file, digest_folder
from world4rl.provenance.episodes import EpisodeSet, all_episode_sets
from world4rl.provenance.manifests import Acceptance, LandedEpisode, read_acceptances
from world4rl.provenance.records import Chain, Run, subject
from world4rl.provenance.tombstones import Tombstones, read_tombstones
from world4rl.withdrawal import workspace
from world4rl.withdrawal.objects import doomed
from world4rl.withdrawal.reach import made_from, sets_reached
from world4rl.withdrawal.selecting import Cut, cuts, folders, holders, select

LANDED = "landed"  # the step that puts accepted datasets under DVC


@dataclass(frozen=True)
class Request:
    """What somebody withdraws; nothing named: finish what was begun.

    Attributes:
        episodes: Digests, or `ID:INDEX` of a dataset.
        operator: All that this person recorded.
        dataset: All of the dataset with this id.
        models: Whether affected models and rollouts leave cache and remotes too.
        also_landing: Whether the datasets leave the landing folder too.
    """

    episodes: tuple[str, ...] = ()
    operator: str | None = None
    dataset: str | None = None
    models: bool = False
    also_landing: bool = False


@dataclass(frozen=True)
class Plan:
    """What a withdrawal does.

    Attributes:
        episodes: Those that are withdrawn now.
        cuts: What becomes of each accepted dataset that holds one.
        stones: All tombstones, the new ones included.
        accepted: The records of all accepted datasets, as the plan found them.
        affected: Versions of artefacts that were made from these episodes, sorted.
        known: Those that earlier decisions name.
        deployments: Robots that run such a policy, as {robot, task, policy}.
        retrain: Stages that follow from the data and run again.
        folders: Of datasets and stores that leave the workspace.
        redacted: Episode sets without the names, by the digest of the original.
        objects: What leaves cache and remotes.
        champions: Folders of former champions, made from these episodes, that leave the workspace.
        pictures: Film strips and report in the workspace that show these episodes.
        landing: Names of datasets in the landing folder that hold withdrawn episodes.
    """

    episodes: Sequence[LandedEpisode]
    cuts: Sequence[Cut]
    stones: Tombstones
    accepted: Sequence[Acceptance]
    affected: Sequence[tuple[str, str]]
    known: frozenset[tuple[str, str]]
    deployments: Sequence[dict[str, str]]
    retrain: Sequence[str]
    folders: Sequence[Path]
    redacted: dict[str, EpisodeSet] = field(repr=False)
    objects: Sequence[Found] = ()
    champions: Sequence[Path] = ()
    pictures: Sequence[Path] = ()
    landing: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.episodes or self.cuts or self.leaving or self.redacted or self.objects)

    @property
    def leaving(self) -> list[Path]:
        """All that leaves the workspace."""
        return [*self.folders, *self.champions, *self.pictures]

    def lines(self, request: Request) -> list[str]:
        """The plan for people."""
        lines = [f"episodes to withdraw: {len(self.episodes)}"]
        for cut in self.cuts:
            rest = f"{len(cut.keep)} episodes live on in a new dataset" if cut.keep else "nothing of it stays"
            lines.append(f"  dataset {cut.acceptance.id} ({cut.acceptance.name}): {len(cut.gone)} go, {rest}")
        lines += [f"folders and pages that leave the workspace: {len(self.leaving)}"]
        lines += [f"  {path}" for path in self.leaving]
        lines += [f"lists of episodes that lose their names: {len(self.redacted)}"]
        for found in self.objects:
            size = sum(found.bytes.values()) / 1e6
            lines.append(f"objects that leave {found.storage}: {len(found.bytes)}, {size:.1f} MB")
        lines += [f"artefacts made from them: {len(self.affected)}"]
        lines += [f"  {path} {digest[:16]}" for path, digest in self.affected]
        if self.affected and not request.models:
            lines.append("  models and rollouts among them stay in cache and remotes: --models removes those too")
        lines += [f"robots that run such a policy: {len(self.deployments)}"]
        lines += [f"  {one['robot']}: {one['task']} {one['policy'][:16]}" for one in self.deployments]
        lines += [f"stages that run again: {len(self.retrain)}", *(f"  {name}" for name in self.retrain)]
        if self.landing:
            what = "go too" if request.also_landing else "stay there unless --also-landing is given"
            lines.append(f"datasets in the landing folder that hold them ({what}): {', '.join(self.landing)}")
        return lines

    def json(self) -> dict[str, Any]:
        """The plan for machines."""
        return {
            "episodes": [one.digest for one in self.episodes],
            "datasets": [{"id": cut.acceptance.id, "kept": len(cut.keep), "gone": len(cut.gone)} for cut in self.cuts],
            "folders": [str(path) for path in self.leaving],
            "redacted": sorted(self.redacted),
            "objects": {found.storage: dict(found.bytes) for found in self.objects},
            "affected": [{"path": path, "sha256": digest} for path, digest in self.affected],
            "deployments": list(self.deployments),
            "retrain": list(self.retrain),
            "landing": list(self.landing),
        }


class Withdrawals:
    """Withdrawals of a repository.

    Args:
        root: Its folder.
        params_file: The parameter file, below `root` unless absolute.

    Raises:
        MachineError: a remote cannot be reached.
        ConfigError: parameters or `dvc.yaml` are wrong.
    """

    def __init__(self, root: Path, params_file: Path = Path("params.yaml")) -> None:
        self.paths = Paths(Path(root))
        self.params: Params = load_params(Path(root) / params_file)
        self.project = DvcProject(root)
        self.storages = Storages(root)
        self._inbox = open_inbox(self.params.landing.address, self.paths.root)

    def close(self) -> None:
        """Lets go of DVC's databases."""
        self.storages.close()

    def plan(self, request: Request) -> Plan:
        """What would happen; changes nothing.

        Raises:
            DataError: the request names nothing, a dataset is missing or damaged, a chain of records is broken, or the
            landing folder cannot be listed.
        """
        stones = read_tombstones(self.paths)
        accepted = read_acceptances(self.paths)
        chosen = [one for one in self._chosen(accepted, request) if one.digest not in stones.episodes]
        gone = {*stones.episodes, *(one.digest for one in chosen)}
        ids = holders(accepted, gone, self.params, self.paths) if chosen else set[str]()
        found = cuts(accepted, gone, ids | stones.datasets)
        ids |= stones.datasets | {cut.acceptance.id for cut in found}
        staying = [one for one in accepted if one.id not in ids]
        sets = all_episode_sets(self.paths)
        decided = read_history(self.paths)
        known = frozenset(
            (one.name, one.sha256)
            for record in decided.records
            if isinstance(record.predicate, Withdrawal)
            for one in record.predicate.affected
        )
        affected = self._affected(found, sets)
        plan = Plan(
            episodes=chosen,
            cuts=found,
            stones=Tombstones({digest: stones.episodes.get(digest, "") for digest in gone}, frozenset(ids)),
            accepted=accepted,
            affected=sorted(affected),
            known=known,
            deployments=[
                {"robot": one.robot, "task": one.task, "policy": one.policy}
                for _, one in sorted(decided.deployments().items())
                if one.policy in {digest for _, digest in affected}
            ],
            retrain=[stage.name for stage in self._downstream(found) if self.project.recorded(stage) is not None],
            folders=folders(ids, self.params.tasks, self.paths),
            redacted=workspace.nameless(sets, ids, staying + [cut.acceptance for cut in found if cut.keep]),
            landing=workspace.landing_copies(ids, self._inbox, self.paths) if ids else [],
        )
        relied_on = _relied_on(decided)
        objects = self._objects(plan, {one.id for one in staying}, request.models, relied_on)
        champions = self._champions(plan, relied_on) if request.models else []
        return replace(
            plan, objects=self.storages.find(objects), champions=champions, pictures=self._pictures(known | affected)
        )

    def carry_out(self, request: Request, plan: Plan, *, by: str, because: str) -> None:
        """Carries a plan out.

        Args:
            request: What was asked for.
            plan: What `plan` made of it.
            by: Who answers for it.
            because: Why, in a sentence; it is kept for good.

        Raises:
            ConfigError: there is no key to sign with.
            MachineError: a stage is at work on the data.
            DataError: something is damaged. What was done stays done; the same command goes on.
        """
        private = keys.private_key_path()
        if plan.episodes:
            keys.public_text(private)
            keys.ensure_key(self.paths)  # it is there: has this repository trust it, or nobody could read the decision
        data = self.paths.root / "data"
        with self.storages.exclusively([data / "landed", data / "store"]), locked(self.paths.landing_lock):
            if read_acceptances(self.paths) != plan.accepted:
                raise DataError(
                    "a dataset was accepted meanwhile; nothing was changed",
                    where=self.paths.accepted,
                    remedy="give the same command again",
                )
            # What cannot be cut is found out before anything is on record.
            prepared = {
                cut.acceptance.id: workspace.prepare(cut, self.params, self.paths) for cut in plan.cuts if cut.keep
            }
            if plan.episodes:
                self._decide(plan, by, because, private)
            workspace.apply(read_tombstones(self.paths), prepared, self.params, self.paths)
        discard_abandoned(self.paths.root)
        # The cut datasets are under DVC, here and in the remotes, before anything of the old ones goes.
        landed = [self.project.stage(LANDED, task) for task in self.params.tasks if self.paths.landed(task).exists()]
        for stage in landed:
            if not self.project.unchanged(stage):
                self.storages.run("repro", "-s", stage.name)
        self._purge(request, [stage.name for stage in landed])
        if request.also_landing:
            workspace.remove_landing_copies(plan.landing, self._inbox)

    def retrain(self) -> None:
        """Brings everything up to date without the data.

        Raises:
            DataError: a stage failed.
        """
        self.storages.run("repro")

    def keep(self) -> None:
        """Records what ran, writes the audit's pages anew and commits the state to the lineage, as after any run.

        Raises:
            MachineError: Git or the remote failed. The withdrawal stands; `world4rl lineage` does the rest.
        """
        root = self.paths.root
        for stage, kept in record_project(self.project):
            if kept is not None and kept.new:
                progress.log(f"{stage.name} is recorded")
        for stage in self.project.stages.values():
            if self.paths.audit(stage.name).exists():  # it may name somebody who withdrew
                pages(self.paths, stage)
        if commit_lineage(root) is not None and self.params.lineage.push:
            push_lineage(root)

    def _chosen(self, accepted: Sequence[Acceptance], request: Request) -> list[LandedEpisode]:
        """The accepted episodes that the request names; none where only an earlier withdrawal is to be finished."""
        try:
            return select(accepted, episodes=request.episodes, operator=request.operator, dataset=request.dataset)
        except DataError:
            # What is gone has no name any more: a killed withdrawal of it is finished with the words that began it.
            begun = self.plan(replace(request, episodes=(), operator=None, dataset=None))
            if begun.empty and not (request.also_landing and begun.landing):
                raise
            return []

    def _decide(self, plan: Plan, by: str, because: str, private: Path) -> None:
        decision = Withdrawal(
            at=stamp(utc_now()),
            by=by,
            because=because,
            episodes=tuple(sorted(one.digest for one in plan.episodes)),
            datasets=tuple(sorted(cut.acceptance.id for cut in plan.cuts)),
            affected=tuple(subject(*one) for one in plan.affected),
            deployments=tuple(plan.deployments),
        )
        Decisions(self.paths).add(workspace.redactions(plan.redacted, self.paths), decision, private)
        progress.log(f"{len(plan.episodes)} episodes are withdrawn")

    def _purge(self, request: Request, landed: Sequence[str]) -> None:
        """Removes what is to go from the remotes and then from the cache, where a killed purge finds it again."""
        plan = self.plan(Request(models=request.models))
        for path in (*plan.champions, *plan.pictures):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            progress.log(f"{path} is removed")
        for found in reversed(plan.objects):
            if found.storage in self.storages.remotes and landed:
                self.storages.run("push", "-r", found.storage, *landed)
            self.storages.remove(found)
            progress.log(f"{len(found.bytes)} objects left {found.storage}")

    def _affected(self, found: Sequence[Cut], sets: dict[str, EpisodeSet]) -> set[tuple[str, str]]:
        """By the run records; where a stage has none, what lies in the workspace counts if DVC says that it follows."""
        records = Chain(self.paths.records, [Run]).read()
        recorded = {record.predicate.stage for record in records}
        affected = made_from(history_of(read_book(self.paths)), sets_reached(sets, found))
        for stage in self._downstream(found):
            if stage.name not in recorded and self.project.recorded(stage) is not None:
                affected |= {(path, _digest(self.paths.root / path)) for path in stage.outputs if self._there(path)}
        return affected

    def _there(self, path: str) -> bool:
        return (self.paths.root / path).exists()

    def _downstream(self, found: Sequence[Cut]) -> list[Stage]:
        """The stages that follow from the datasets, in their order."""
        reached = {f"{LANDED}@{task}" for cut in found for task in cut.tasks}
        stages = []
        for stage in self.project.stages.values():
            if reached & stage.upstream:
                reached.add(stage.name)
                stages.append(stage)
        return stages

    def _objects(self, plan: Plan, accepted: Collection[str], models: bool, relied_on: Collection[str]) -> set[str]:
        """Objects of withdrawn data, of pictures of it, and, if asked for, of what was made from it."""
        if not plan.stones.datasets:
            return set()
        trees = self.storages.trees()
        affected = plan.known.union(plan.affected)
        versions = self.storages.versions({path for path, _ in affected if models or self._shows(path)})
        made = {name for version, name in versions.items() if version in affected and version[1] not in relied_on}
        single = self.storages.current() - made
        data = doomed(trees.values(), plan.stones.datasets, accepted, single)
        others = {part for name, tree in trees.items() if name not in made for part in tree.values()}
        return data | ({part for name in made for part in self.storages.parts(name)} - (others - data) - single)

    def _champions(self, plan: Plan, relied_on: Collection[str]) -> list[Path]:
        """Folders of champions that were made from withdrawn episodes, without those that somebody relies on."""
        made = {digest for _, digest in plan.known.union(plan.affected)}
        return champion_folders(self.paths, made.difference(relied_on))

    def _pictures(self, affected: Collection[tuple[str, str]]) -> list[Path]:
        """What lies in the workspace of artefacts that show frames and were made from withdrawn episodes."""
        shown = sorted({self.paths.root / path for path, _ in affected if self._shows(path)})
        root = self.paths.root
        return [path for path in shown if path.exists() and (str(path.relative_to(root)), _digest(path)) in affected]

    def _shows(self, path: str) -> bool:
        """Whether an artefact shows frames of episodes: film strips, and the page that has them inside."""
        return self.paths.root / path in (self.paths.fidelity, self.paths.report)


def _digest(path: Path) -> str:
    return digest_folder(path) if path.is_dir() else digest_file(path)


def _relied_on(decided: History) -> set[str]:
    """Digests of policies that somebody relies on: champions as of now, and what robots run."""
    champions = {reign.policy for task in decided.tasks if (reign := decided.champion(task)) is not None}
    return champions | {one.policy for one in decided.deployments().values() if one.policy is not None}
