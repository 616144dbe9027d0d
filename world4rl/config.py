"""Typed parameters, read from `params.yaml`.

Every value has a default with its source. A profile (`world4rl/profiles/*.yaml`) overrides some of them;
`world4rl params --profile NAME` prints the whole resolved file, which is what `params.yaml` holds: DVC hashes
what is written there, so nothing may hide in a default. Sections follow the stages that read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from world4rl.envs.tasks import METAWORLD_TASKS, is_simulated
from world4rl.errors import ConfigError

PROFILES = ("ci", "demo", "paper")
TASK_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"  # a folder's, a partition's, and part of a DVC stage's
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of parameters: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Simulation(Section):
    """Meta-World as collection, evaluation and world model share it."""

    camera: Literal["corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV"] = "corner2"
    camera_target: tuple[float, float, float] | None = None  # metres; where the camera looks (None: as shipped)
    field_of_view: Annotated[float, Field(ge=1, le=120)] | None = None  # degrees, vertical (None: as shipped)
    image_size: Annotated[int, Field(ge=16, le=480)] = 48  # pixels, square
    action_repeat: Positive = 2  # simulator steps an action is held for; Meta-World runs at 80 Hz
    episode_steps: Positive = 50  # actions an episode; the paper's trajectory length
    workers: Positive = 2  # simulator processes

    @model_validator(mode="after")
    def _aimed(self) -> Self:
        if self.camera_target is not None and self.camera in ("behindGripper", "gripperPOV"):
            raise ValueError(f"simulation.camera_target: the camera {self.camera} moves with the hand, aim a fixed one")
        return self


class TaskParameters(Section):
    """What may differ from task to task."""

    demonstrations: Positive = 50  # expert episodes that BC learns from; the paper uses 50
    expert_noise: Annotated[float, Field(ge=0, le=1)] = 0.0  # std of Gaussian noise on the scripted expert's actions
    simulated: bool = True  # False: Meta-World does not have it, all its data land (docs/landing.md)
    called: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # what landed datasets may call it beside its name


class Demonstrations(Section):
    """Scripted experts recorded as LeRobot datasets."""

    held_out: NonNegative = 20  # expert episodes that nothing trains on: the replay diagnostic needs them


class Rollouts(Section):
    """BC-policy and uniform-random episodes a task, for the world model and the success classifier."""

    policy: Positive = 150  # the paper's number
    random: NonNegative = 30  # the paper's number
    random_hold: Positive = 1  # steps that a random action is held; at 1 the hand only trembles about its start
    disturbance: Annotated[float, Field(ge=0, le=1)] = 0.0  # largest std of held noise on policy rollouts to learn from
    validation: Fraction = 0.1  # share of the above that only tunes thresholds
    held_out: Positive = 30  # policy episodes that nothing trains on


class Store(Section):
    """Zarr stores made from LeRobot datasets."""

    chunk_frames: Positive = 16  # frames a chunk: what one random read decompresses
    shard_frames: Positive = 4096  # frames a shard: what one file holds
    compression_level: Annotated[int, Field(ge=1, le=22)] = 3  # zstd

    @model_validator(mode="after")
    def _whole_chunks(self) -> Self:
        if self.shard_frames % self.chunk_frames:
            raise ValueError("store.shard_frames must be a multiple of store.chunk_frames")
        return self


class Landing(Section):
    """Where new datasets arrive, and how they are read."""

    address: Annotated[str, Field(min_length=1)] = "landing"  # a folder, or any address that fsspec knows
    quiet_seconds: Annotated[float, Field(ge=0)] = 120.0  # without a marker: nothing may change for so long
    required: tuple[Literal["operator", "robot_id", "session", "licence", "consent"], ...] = ()  # what must be stated


class Retraining(Section):
    """When landed episodes start a retraining (docs/retraining.md); no stage depends on it.

    The defaults: 20 episodes are what one operator records in a sitting, and fewer hardly move a policy; nobody's
    recordings wait for longer than a day; at two in the morning nobody needs the machine.
    """

    enabled: bool = True  # False: nothing starts by itself; the job `retrain` still works
    episodes: Positive = 20  # accepted episodes of a task that nothing was trained on yet
    hours: Annotated[float, Field(gt=0)] = 24.0  # that the oldest of them waits at most
    nightly: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")] | None = "0 2 * * *"  # cron: what is stale; None: never
    timezone: Annotated[str, Field(min_length=1)] = "UTC"  # of `nightly`, e.g. Europe/Berlin


class Reading(Section):
    """How landed datasets are read; those of the simulator need no telling."""

    mapping: dict[str, str] = {}  # feature by name: action, state, success, or a camera's (docs/data.md)
    fit: Literal["stretch", "crop", "pad"] = "crop"  # how a picture of another shape becomes a square one
    action_range: tuple[float, float] | None = (-1.0, 1.0)  # an action outside is quarantined
    held_out: Fraction = 0.2  # of the episodes: nothing trains on them
    validation: Fraction = 0.1  # of the rollouts: they only tune thresholds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.action_range is not None and not self.action_range[0] < self.action_range[1]:
            raise ValueError("reading.action_range must be (low, high) with low < high")
        if self.held_out + self.validation >= 1:
            raise ValueError("reading.held_out and reading.validation must leave something to train on")
        return self


class WorldModel(Section):
    """The diffusion world model: one for all tasks."""

    history: Positive = 4  # past frames in the condition (paper)
    action_bins: Annotated[int, Field(ge=2)] = 21  # K of the two-hot encoding (paper)
    fold: Positive = 3  # pixels folded into channels: the U-Net works at image_size / fold
    channels: tuple[Positive, ...] = (64, 64, 64, 64)  # U-Net width a level (DIAMOND, small)
    blocks_per_level: Positive = 2
    attention_levels: tuple[bool, ...] = (False, False, False, False)
    mid_attention: bool = True
    conditioning_width: Positive = 256  # of the embedding of noise level, actions and task (DIAMOND, small)
    norm_groups: Positive = 8  # channels must be a multiple of it
    residual: bool = True  # predict the change from the last frame; needed at small budgets (docs/method.md)
    task_conditioning: bool = False  # tell the model which task it imagines (the paper does not)
    predict_state: bool = False  # predict the proprioceptive state beside the frame
    reference_frame: bool = False  # the episode's first frame is in the condition too: what the arm hides is not lost
    sigma_data: Annotated[float, Field(gt=0)] = 0.5  # DIAMOND
    sigma_offset_noise: Annotated[float, Field(ge=0)] = 0.3  # DIAMOND, small
    training_sigma_mean: float = -0.4  # of ln sigma (DIAMOND, small)
    training_sigma_std: Annotated[float, Field(gt=0)] = 1.2
    training_sigma_range: tuple[float, float] = (2e-3, 20.0)
    sampler_start_share: Fraction = 0.0  # of the training rows: noised as the sampler's start is, not at random
    history_noise: Annotated[float, Field(ge=0)] = 0.05  # largest std of the noise on the history in training
    autoregressive_steps: Positive = 2  # predicted frames replace true ones in the training history
    single_step_share: Fraction = 0.0  # share of the training, at its start, in which none does: cheaper steps
    sampling_steps: Positive = 1
    sampling_sigma_range: tuple[float, float] = (2e-3, 5.0)
    sampling_initial_noise: Fraction = 1.0  # of the first sigma; 0 with one step: the conditional mean, no grain
    sampling_rho: Annotated[float, Field(gt=0)] = 7.0
    batch_size: Positive = 32
    training_steps: Positive = 2000
    learning_rate: Rate = 3e-4
    warmup_steps: NonNegative = 100
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    bf16: bool = True
    checkpoint_steps: Positive = 200

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.channels) != len(self.attention_levels):
            raise ValueError("world_model.channels and world_model.attention_levels must have the same length")
        if any(channels % self.norm_groups for channels in self.channels):
            raise ValueError("world_model.channels must be multiples of world_model.norm_groups")
        for low, high in (self.training_sigma_range, self.sampling_sigma_range):
            if not 0 < low < high:
                raise ValueError("world_model sigma ranges must be (low, high) with 0 < low < high")
        return self


class Classifier(Section):
    """The success classifier."""

    backbone: Literal["resnet18", "efficientnet-lite0", "small-cnn"] = "resnet18"
    pretrained: bool = True  # ImageNet weights where they are installed or cached
    generated_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.5  # share of a batch that the world model generated
    generated_episodes: Positive = 64  # training episodes replayed inside the model, at most, of each store
    batch_size: Positive = 64
    training_steps: Positive = 400
    learning_rate: Rate = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    minimum_precision: Fraction = 0.9  # what every threshold is tuned for on validation episodes
    checkpoint_steps: Positive = 100


class BehaviourCloning(Section):
    """The Gaussian BC policy a task."""

    state: bool = False  # the policy sees the proprioceptive state too; needs world_model.predict_state
    frames: Positive = 1  # observation frames the policy sees
    width: Positive = 32  # channels of the first convolution
    batch_size: Positive = 64
    training_steps: Positive = 1000
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    shift_pixels: NonNegative = 3  # random-shift augmentation
    log_std_range: tuple[float, float] = (-3.0, 0.0)  # the paper clips sigma at e^0
    checkpoint_steps: Positive = 250


class Refinement(Section):
    """PPO inside the frozen world model."""

    iterations: Positive = 30
    episodes: Positive = 64  # imagined episodes an iteration
    horizon: Positive = 50  # steps after which an imagined episode is truncated and its value bootstrapped
    bootstrap_at_horizon: bool = True  # False: what is not solved by the horizon has failed, as in evaluation
    mid_trajectory: Fraction = 0.25  # share of imagined episodes that start inside a real episode
    log_std_range: tuple[float, Annotated[float, Field(le=0)]] = (-1.0, 0.0)  # of ln sigma; sigma <= e^0 (paper)
    discount: Annotated[float, Field(gt=0, le=1)] = 0.99
    gae_lambda: Fraction = 0.95
    clip: Annotated[float, Field(gt=0)] = 0.15
    epochs: Positive = 4
    minibatch_size: Positive = 512
    actor_learning_rate: Rate = 6e-5
    critic_learning_rate: Rate = 1e-3
    critic_pretraining_steps: NonNegative = 200  # on the real episodes' returns
    critic_warmup_iterations: NonNegative = 2  # the critic alone learns
    entropy_weight: Annotated[float, Field(ge=0)] = 0.0
    bc_kl_weight: Annotated[float, Field(ge=0)] = 0.01  # KL(policy || BC policy)
    target_kl: Annotated[float, Field(gt=0)] | None = 0.05  # from there on only the critic learns in this iteration
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_iterations: Positive = 5

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.log_std_range[0] > self.log_std_range[1]:
            raise ValueError("refinement.log_std_range must be (low, high) with low <= high")
        return self


class Evaluation(Section):
    """Trials in the simulator, and the same seeds' imagination."""

    trials: Positive = 100  # paired: BC and refined policy see the same seeds
    imagined_trials: Positive = 100
    videos: NonNegative = 2  # a success and a failure a policy
    open_loop_horizons: tuple[Positive, ...] = (5, 15, 25)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Gates(Section):
    """Bounds of the blocking asset checks."""

    classifier_precision: Fraction = 0.9
    open_loop_ratio: Annotated[float, Field(gt=0)] = 1.0  # world-model error over that of copying the last frame
    refined_margin: Annotated[float, Field(ge=0, le=100)] = 0.0  # points the refined policy may fall below BC


class Lineage(Section):
    """What becomes of the state after a run."""

    push: bool = True  # to DVC's default remote, if one is set, whenever something has changed


class Promotion(Section):
    """When a challenger takes the champion's place. No stage reads it, `world4rl challenge` does."""

    minimum_effect: Annotated[float, Field(gt=0, lt=100)] = 5.0  # points of success rate; a smaller gain is no reason
    alpha: Rate = 0.05  # largest probability of promoting a policy that is no better, however often one looks
    beta: Rate = 0.1  # largest probability of giving up before the last trial on one that gains the minimum effect
    batch: Positive = 10  # seeds that both are tried on between two looks
    trials: Annotated[int, Field(gt=0, le=1 << 14)] = 300  # seeds at most; what has not won by then is not promoted
    robot_tasks: tuple[str, ...] = ()  # tried on a robot, though Meta-World has them; what it has not always is
    robot_trials: Positive = 20  # landed trials that both need; they are judged once, as soon as both have them


class Params(Section):
    """All parameters of a run."""

    profile: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "demo"
    seed: NonNegative = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: NonNegative = 0  # torch threads a stage; 0: as many as cores
    signatures: Literal["require", "when-present", "off"] = (
        "when-present"  # of models that are loaded (docs/lineage.md)
    )
    tasks: tuple[str, ...]
    task_parameters: dict[str, TaskParameters]
    simulation: Simulation = Simulation()
    demonstrations: Demonstrations = Demonstrations()
    rollouts: Rollouts = Rollouts()
    store: Store = Store()
    landing: Landing = Landing()
    retraining: Retraining = Retraining()
    reading: Reading = Reading()
    world_model: WorldModel = WorldModel()
    classifier: Classifier = Classifier()
    behaviour_cloning: BehaviourCloning = BehaviourCloning()
    refinement: Refinement = Refinement()
    evaluation: Evaluation = Evaluation()
    gates: Gates = Gates()
    lineage: Lineage = Lineage()
    promotion: Promotion = Promotion()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks must name at least one task, each once")
        for task in self.tasks:
            if not re.fullmatch(TASK_NAME, task):
                raise ValueError(f"{task!r} cannot name a task: use letters, digits, _ and -, at most 100")
            settings = self.task_parameters.get(task, TaskParameters())
            if settings.simulated and not is_simulated(task):
                raise ValueError(
                    f"unknown task {task!r}; where a real robot does it, set task_parameters.{task}.simulated: false. "
                    f"Meta-World v3 has {', '.join(METAWORLD_TASKS)}"
                )
            if is_simulated(task) and not settings.simulated:
                raise ValueError(f"Meta-World has a task {task!r}: give the one without a simulator another name")
        if set(self.task_parameters) != set(self.tasks):
            raise ValueError(
                "task_parameters must have one entry for each of tasks: "
                f"{sorted(set(self.tasks) ^ set(self.task_parameters))} stand in only one of the two"
            )
        names = [*self.tasks, *(name for each in self.task_parameters.values() for name in each.called)]
        if len(set(names)) < len(names):
            raise ValueError(f"two tasks go by the name {next(n for n in names if names.count(n) > 1)!r}")
        deepest = self.world_model.fold * 2 ** (len(self.world_model.channels) - 1)
        if self.simulation.image_size % deepest:
            raise ValueError(
                f"simulation.image_size ({self.simulation.image_size}) must be a multiple of world_model.fold x "
                f"2^(levels - 1) = {deepest}, or the U-Net cannot halve it that often"
            )
        if self.behaviour_cloning.state and not self.world_model.predict_state:
            raise ValueError(
                "behaviour_cloning.state needs world_model.predict_state: the imagined environment has no other state"
            )
        if max(self.evaluation.open_loop_horizons) >= self.simulation.episode_steps:
            raise ValueError("evaluation.open_loop_horizons must be shorter than simulation.episode_steps")
        unknown = sorted(set(self.promotion.robot_tasks) - set(self.tasks))
        if unknown:
            raise ValueError(f"promotion.robot_tasks names {', '.join(unknown)}, which tasks does not")
        if self.refinement.horizon > self.simulation.episode_steps:
            raise ValueError("refinement.horizon must not exceed simulation.episode_steps")
        return self

    @property
    def task_names(self) -> dict[str, str]:
        """The task that each name stands for: its own, and those that datasets may call it."""
        called = {name: task for task, settings in self.task_parameters.items() for name in settings.called}
        return {**{task: task for task in self.tasks}, **called}

    def task_called(self, name: str) -> str | None:
        """The task that a dataset calls by a name; None where the parameters know no such name."""
        return self.task_names.get(name)


def parse_params(values: Any, *, where: str | Path) -> Params:
    """Validates a mapping of parameters.

    Raises:
        ConfigError: names every wrong key, value or combination at once.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'parameters'}: {_explain(e)}" for e in error.errors()]
        raise ConfigError(
            "invalid parameters:\n" + "\n".join(f"    {line}" for line in lines),
            where=where,
            remedy="correct these entries; `world4rl params --profile demo` prints a complete valid file",
        ) from None


def _explain(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    return f"{str(error['msg']).removeprefix('Value error, ')} (got {error['input']!r})"[:400]


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Reads and validates a parameter file.

    Raises:
        ConfigError: the file is missing, is not YAML, or has wrong values.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no parameter file", where=path, remedy="run in the repository's root folder") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=path, remedy="correct the syntax") from None
    return parse_params(values, where=path)


def load_profile(name: str) -> Params:
    """The named profile (`ci`, `demo` or `paper`), resolved over the defaults.

    Raises:
        ConfigError: there is no such profile.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}", remedy=f"choose one of {', '.join(PROFILES)}")
    text = resources.files("world4rl").joinpath(f"profiles/{name}.yaml").read_text(encoding="utf-8")
    return parse_params(yaml.safe_load(text), where=f"profile {name}")


def dump_params(params: Params, sections: Iterable[str] | None = None) -> str:
    """The complete parameter file as YAML, every value written out; of some sections where they are named."""
    header = (
        f"# Every parameter of this run, from the profile `{params.profile}`. `world4rl params --profile NAME` prints\n"
        "# another profile; world4rl/config.py says what each value means and where it comes from.\n"
    )
    values = params.model_dump(mode="json", include=None if sections is None else set(sections))
    return header + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110)


def select_parameter(values: Any, name: str) -> Any:
    """The value at a dotted name of a parameter file's content; None where there is none, as DVC has it."""
    for key in name.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values
