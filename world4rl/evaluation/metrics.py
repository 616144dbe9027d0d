"""What the stages' metrics files hold, read strictly, and the summary that the report makes of them.

A stage may write more keys than stand here (they are its own business), but never fewer, and never a rate outside
[0, 1]: `read_metrics` names the file, the key and the stage to run again. `Summary` is the schema of
`reports/summary.json` and takes no other key. A rate that no episode could define is null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from world4rl.errors import DataError
from world4rl.evaluation.tables import missing_output
from world4rl.files import read_json

Count = Annotated[int, Field(ge=0)]
Trials = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, le=1)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Points = Annotated[float, Field(ge=-100, le=100)]


class Metrics(BaseModel):
    """Any stage's metrics."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Timed(Metrics):
    """Every stage says how long its work took."""

    seconds: Seconds


class PolicyResult(Metrics):
    """A policy in the simulator."""

    successes: Count
    trials: Trials
    steps_mean: Annotated[float, Field(gt=0)] | None = None  # actions to success, over the successes

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.successes > self.trials:
            raise ValueError("more successes than trials")
        return self

    @property
    def rate(self) -> float:
        """Success rate in [0, 1]."""
        return self.successes / self.trials


class Imagined(Metrics):
    """Success rates of the same policies inside the world model."""

    bc: Rate
    refined: Rate


class TaskEvaluation(Timed):
    """`reports/evaluation/T.json`."""

    bc: PolicyResult
    refined: PolicyResult
    gain_points: Points
    gain_interval: tuple[Points, Points]
    p_value: Rate
    gained: Count
    lost: Count
    imagined: Imagined


class RobotTrials(Metrics):
    """A policy on the robot; no trials so far are none."""

    successes: Count
    trials: Count
    steps_mean: Annotated[float, Field(gt=0)] | None = None


class RobotEvaluation(Timed):
    """`reports/evaluation/T.json` of a task that no simulator has; the gain is null until both were tried."""

    judged: Literal["robot"]
    bc: RobotTrials
    refined: RobotTrials
    gain_points: Points | None
    gain_interval: tuple[Points, Points] | None
    p_value: Rate | None
    others: Count  # trials of policies that are not the present ones


class Replay(Metrics):
    """What the model and the classifier make of held-out real episodes whose actions are replayed in imagination."""

    expert_success_recall: Rate | None
    policy_success_recall: Rate | None
    policy_failure_recall: Rate | None


class Strip(Metrics):
    """A film strip: an image of real beside imagined frames."""

    task: str
    outcome: str
    imagined_outcome: str
    path: str
    policy: str


class Fidelity(Timed):
    """`reports/fidelity.json`."""

    one_step_mse: Error
    open_loop_mse: dict[str, Error]
    copy_last_mse: dict[str, Error]
    replay: Replay
    action_controllability: Error
    random_action_ratio: Error
    strips: tuple[Strip, ...]

    @model_validator(mode="after")
    def _same_horizons(self) -> Self:
        if not self.open_loop_mse or set(self.open_loop_mse) != set(self.copy_last_mse):
            raise ValueError("open_loop_mse and copy_last_mse must have the same horizons")
        return self


class Bin(Metrics):
    """A bin of the reliability diagram; see `statistics.ReliabilityBin`."""

    low: Rate
    high: Rate
    count: Count
    confidence: Rate | None
    frequency: Rate | None


class Recognition(Metrics):
    """How well the classifier recognises success on one kind of frames."""

    precision: Rate | None
    recall: Rate | None


class TaskRecognition(Recognition):
    """The same for one task: on held-out policy rollouts, and on generated frames."""

    generated: Recognition


class Detection(Recognition):
    """How well it recognises success, and how well its probabilities are calibrated."""

    ece: Rate


class ClassifierMetrics(Detection, Timed):
    """`reports/success_classifier.json`: on held-out policy rollouts, and on generated frames."""

    thresholds: Annotated[dict[str, Rate], Field(min_length=1)]
    generated: Detection
    tasks: dict[str, TaskRecognition]
    reliability: tuple[Bin, ...]
    backbone: str

    @model_validator(mode="after")
    def _same_tasks(self) -> Self:
        if set(self.thresholds) != set(self.tasks):
            raise ValueError("thresholds and tasks must have the same tasks")
        return self


class Quarantined(Metrics):
    """An episode that failed a check."""

    episode: int
    check: str
    reason: str
    evidence: str = ""


class StoreMetrics(Timed):
    """`reports/data/T/expert.json`, and either part of `reports/data/T/rollouts.json`."""

    accepted: Count
    quarantined: tuple[Quarantined, ...]
    frames: Count
    successes: Count | None  # None where nothing says which episodes succeeded


class RolloutSources(Metrics):
    """The two datasets of rollouts."""

    policy: StoreMetrics
    random: StoreMetrics


class RolloutMetrics(Timed):
    """`reports/data/T/rollouts.json`."""

    sources: RolloutSources


def read_metrics[M: Metrics](path: Path, model: type[M], stage: str) -> M:
    """Reads a stage's metrics.

    Args:
        path: The JSON file.
        model: What it must hold.
        stage: Command of the stage that writes it (with its task), for the message.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a figure; names every wrong key at once.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        raise missing_output(path, stage) from None
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=path, remedy=f"run `world4rl {stage}` again") from None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise DataError(
            f"the metrics of `{stage}` are wrong:\n{_problems(error)}",
            where=path,
            remedy=f"run `world4rl {stage}` again",
        ) from None


class Closed(BaseModel):
    """A part of the summary: these keys and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SummaryResult(Closed):
    """Trials of a policy."""

    successes: Count
    trials: Trials


class SummaryImagined(Closed):
    """Success rates inside the world model."""

    bc: Rate
    refined: Rate


class SummaryTask(Closed):
    """A task's result; gain in percentage points, refined minus BC."""

    bc: SummaryResult
    refined: SummaryResult
    gain_points: Points
    gain_interval: tuple[Points, Points]
    p_value: Rate
    imagined: SummaryImagined


class SummaryRobotResult(Closed):
    """Trials of a policy on the robot."""

    successes: Count
    trials: Count


class SummaryRobot(Closed):
    """A task's result on the robot; null until both policies were tried."""

    bc: SummaryRobotResult
    refined: SummaryRobotResult
    gain_points: Points | None
    gain_interval: tuple[Points, Points] | None
    p_value: Rate | None


class SummaryDetection(Closed):
    """Precision, recall and calibration on generated frames."""

    precision: Rate | None
    recall: Rate | None
    ece: Rate


class SummaryClassifier(SummaryDetection):
    """The same on held-out policy rollouts, with those on generated frames inside."""

    generated: SummaryDetection


class SummaryReplay(Closed):
    """Share of held-out real episodes whose outcome the replay foretells."""

    expert_success_recall: Rate | None
    policy_success_recall: Rate | None
    policy_failure_recall: Rate | None


class SummaryWorldModel(Closed):
    """Mean squared error of pixels in [0, 1], a horizon in steps each."""

    one_step_mse: Error
    open_loop_mse: dict[str, Error]
    copy_last_mse: dict[str, Error]


class SummaryEpisodes(Closed):
    """Episodes of all datasets."""

    accepted: Count
    quarantined: Count


class Summary(Closed):
    """`reports/summary.json`."""

    profile: str
    seconds: Seconds
    stage_seconds: dict[str, Seconds]
    tasks: dict[str, SummaryTask]
    robot: dict[str, SummaryRobot] = {}
    classifier: SummaryClassifier
    replay: SummaryReplay
    world_model: SummaryWorldModel
    episodes: SummaryEpisodes


def read_summary(path: Path) -> Summary:
    """Reads `reports/summary.json`.

    Raises:
        DataError: the file is missing or does not fit the schema.
    """
    try:
        return Summary.model_validate(read_json(path))
    except FileNotFoundError:
        raise missing_output(path, "report") from None
    except ValidationError as error:
        problem = f"the summary does not fit its schema:\n{_problems(error)}"
    except ValueError as error:
        problem = f"not valid JSON: {error}"
    raise DataError(problem, where=path, remedy="run `world4rl report` again")


def _problems(error: ValidationError) -> str:
    def line(found: Any) -> str:
        return f"    {'.'.join(map(str, found['loc'])) or 'file'}: {found['msg']}"

    return "\n".join(line(found) for found in error.errors())
