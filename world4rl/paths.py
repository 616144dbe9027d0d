"""Where every artefact of a run lies below the repository's root; `dvc.yaml` names the same places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["expert", "policy", "random"]
SOURCES: tuple[Source, ...] = ("expert", "policy", "random")
Role = Literal["expert", "policy", "random", "evaluation"]  # of a landed dataset; nothing trains on the last
ROLES: tuple[Role, ...] = ("expert", "policy", "random", "evaluation")


@dataclass(frozen=True)
class Paths:
    """Every location, from one root folder.

    A `task` is a Meta-World name such as `button-press-topdown-v3`. Nothing here touches the disk.
    """

    root: Path = Path()

    @property
    def params(self) -> Path:
        """The parameter file."""
        return self.root / "params.yaml"

    def raw(self, task: str, source: Source) -> Path:
        """Folder of a raw LeRobot v3 dataset."""
        return self.root / "data" / "raw" / task / source

    def collect_metrics(self, task: str, source: Source) -> Path:
        """JSON metrics of a collecting stage."""
        return self.root / "reports" / "data" / task / f"collect-{source}.json"

    @property
    def accepted(self) -> Path:
        """Folder of the acceptance records: one JSON file a dataset, by its id."""
        return self.root / "data" / "accepted"

    def manifest(self, task: str) -> Path:
        """JSON list of a task's accepted episodes, a role at a time; their Merkle roots are the data's versions."""
        return self.root / "data" / "manifests" / f"{task}.json"

    def episode_set(self, digest: str) -> Path:
        """JSON list of the episodes that a dataset gave to a store (`provenance.episodes`), by its digest."""
        return self.root / "data" / "episodes" / f"{digest}.json"

    def redacted_episode_set(self, digest: str) -> Path:
        """What stands for such a list once its people have withdrawn: the same episodes, and nobody's name."""
        return self.root / "data" / "episodes" / f"{digest}.withdrawn.json"

    @property
    def records(self) -> Path:
        """Folder of the chain of run records."""
        return self.root / "data" / "records"

    @property
    def decisions(self) -> Path:
        """Folder of the chain of promotions, rollbacks, deployments and withdrawals."""
        return self.root / "data" / "decisions"

    @property
    def all_champions(self) -> Path:
        """Folder of the tasks' champions."""
        return self.root / "models" / "champions"

    def champions(self, task: str) -> Path:
        """Folder that keeps every policy that was ever champion of a task, by the first 16 digits of its digest."""
        return self.all_champions / task

    def challenge_report(self, task: str) -> Path:
        """JSON of what the last challenge of a task's champion came to."""
        return self.root / "reports" / "promotion" / f"{task}.json"

    @property
    def trusted_keys(self) -> Path:
        """Folder of the public keys, `NAME.pem`, whose signatures count."""
        return self.root / "keys"

    def landed(self, task: str, role: Role | None = None) -> Path:
        """Folder of a task's accepted LeRobot datasets in a role, by their ids; without a role: of all roles."""
        folder = self.root / "data" / "landed" / task
        return folder if role is None else folder / role

    def landed_report(self, task: str) -> Path:
        """JSON metrics of a task's accepted datasets: how many a role."""
        return self.root / "reports" / "data" / task / "landed.json"

    @property
    def landing_lock(self) -> Path:
        """Held while accepted datasets change."""
        return self.root / ".landing" / "lock"

    @property
    def taking(self) -> Path:
        """Folder of the copies of datasets that are just being taken."""
        return self.root / ".landing" / "taking"

    def picture(self, digest: str, episode: int) -> Path:
        """PNG of a quarantined episode of the dataset with a digest, while it lies in the landing folder."""
        return self.root / ".landing" / "pictures" / f"{digest}-{episode}.png"

    @property
    def quarantine(self) -> Path:
        """The HTML page of what is kept out."""
        return self.root / "reports" / "quarantine.html"

    @property
    def ledger(self) -> Path:
        """Database of what lay in the landing folder and what became of it."""
        return self.root / ".landing" / "ledger.sqlite"

    def store(self, task: str, source: Source) -> Path:
        """Folder of the Zarr stores made from `raw(task, source)`, `collected`, and from each landed dataset."""
        return self.root / "data" / "store" / task / source

    def store_report(self, task: str, stage: Literal["expert", "rollouts"]) -> Path:
        """JSON metrics of a store stage: accepted and quarantined episodes."""
        return self.root / "reports" / "data" / task / f"{stage}.json"

    def bc(self, task: str) -> Path:
        """Folder of the behaviour-cloned policy."""
        return self.root / "models" / task / "bc"

    def bc_metrics(self, task: str) -> Path:
        """JSON metrics of behaviour cloning."""
        return self.root / "reports" / "bc" / f"{task}.json"

    def bc_curve(self, task: str) -> Path:
        """CSV learning curve of behaviour cloning: step, train_nll, validation_nll."""
        return self.root / "reports" / "bc" / f"{task}.csv"

    @property
    def world_model(self) -> Path:
        """Folder of the world model."""
        return self.root / "models" / "world_model"

    @property
    def world_model_metrics(self) -> Path:
        """JSON metrics of world-model training."""
        return self.root / "reports" / "world_model.json"

    @property
    def world_model_curve(self) -> Path:
        """CSV learning curve of the world model: step, loss, learning_rate."""
        return self.root / "reports" / "world_model.csv"

    @property
    def classifier(self) -> Path:
        """Folder of the success classifier."""
        return self.root / "models" / "success_classifier"

    @property
    def classifier_metrics(self) -> Path:
        """JSON metrics of the success classifier."""
        return self.root / "reports" / "success_classifier.json"

    @property
    def classifier_curve(self) -> Path:
        """CSV learning curve of the success classifier: step, loss."""
        return self.root / "reports" / "success_classifier.csv"

    @property
    def fidelity(self) -> Path:
        """Folder of the world model's film strips and errors an episode."""
        return self.root / "reports" / "fidelity"

    @property
    def fidelity_metrics(self) -> Path:
        """JSON metrics of the world model's fidelity."""
        return self.root / "reports" / "fidelity.json"

    @property
    def generations(self) -> Path:
        """Folder of what held-out episodes said about each world model: one JSON file each, kept for comparison."""
        return self.root / "data" / "generations"

    def generation(self, world_model: str) -> Path:
        """What held-out episodes said about the world model with this digest."""
        return self.generations / f"{world_model}.json"

    def refined(self, task: str) -> Path:
        """Folder of the policy refined in imagination."""
        return self.root / "models" / task / "refined"

    def refined_metrics(self, task: str) -> Path:
        """JSON metrics of refinement."""
        return self.root / "reports" / "refined" / f"{task}.json"

    def refined_curve(self, task: str) -> Path:
        """CSV learning curve of refinement, a row an iteration."""
        return self.root / "reports" / "refined" / f"{task}.csv"

    def evaluation(self, task: str) -> Path:
        """Folder of the simulator trials: `trials.csv` and videos."""
        return self.root / "reports" / "evaluation" / task

    def evaluation_metrics(self, task: str) -> Path:
        """JSON metrics of the simulator trials."""
        return self.root / "reports" / "evaluation" / f"{task}.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "reports" / "report.html"

    @property
    def summary(self) -> Path:
        """The report's figures as JSON."""
        return self.root / "reports" / "summary.json"

    def audit(self, name: str) -> Path:
        """HTML page of an audit: `index` for all, else about a DVC stage."""
        return self.root / "reports" / "audit" / f"{name}.html"

    @property
    def signatures(self) -> Path:
        """Folder of the signatures of models."""
        return self.root / "data" / "signatures"

    def signature(self, digest: str) -> Path:
        """Signature of a model, by its `digest_folder`."""
        return self.signatures / f"{digest[:16]}.sig"

    def signed_place(self, model: Path) -> Path:
        """Text that holds the digest of the signed model that belongs in a folder, given below the root."""
        return self.signatures / "places" / model.with_name(f"{model.name}.txt")

    def note(self, name: str) -> Path:
        """JSON that a stage's command leaves about its last run (`provenance.notes`)."""
        return self.root / ".runs" / "notes" / f"{name}.json"

    def recorded(self, stage: str) -> Path:
        """JSON that says which state of `dvc.lock` the newest record of a DVC stage is about."""
        return self.root / ".runs" / "recorded" / f"{stage}.json"

    @property
    def kept_lock(self) -> Path:
        """The newest whole `dvc.lock` that anybody read."""
        return self.root / ".runs" / "dvc.lock"

    @property
    def digests(self) -> Path:
        """Database of digests of files that have not changed since."""
        return self.root / ".runs" / "digests.sqlite"

    def run_state(self, stage: str, task: str | None = None) -> Path:
        """Folder where a trainer keeps what it needs to continue after it was killed; absent when nothing runs."""
        folder = self.root / ".runs" / stage
        return folder if task is None else folder / task
