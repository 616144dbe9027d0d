"""What several repetitions of the lineage, a seed each, say together: figures, targets, a table for the README.

The unit is the seed: intervals of gains are taken over seeds (`statistics.gain_over_seeds`), so they hold the luck of
training as well as that of the trials. Success rates of a policy kind are pooled over the seeds' trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from world4rl.errors import DataError
from world4rl.evaluation.figures import number, percent, points
from world4rl.evaluation.metrics import Closed, Count, Error, Points, Rate, Seconds, Summary, Trials
from world4rl.evaluation.statistics import (
    gain_over_seeds,
    mean_maximum_rank_violation,
    pearson,
    wilson_interval,
)
from world4rl.evaluation.wording import EXPERT_SUCCESS_RECALL, IMAGINED_GAP, POLICY_FAILURE_RECALL, pretty
from world4rl.progress import duration

LEAST_GAIN = 15.0  # points, mean over seeds and tasks
CLASSIFIER_PRECISION = 0.9
BC_RANGE = (0.3, 0.7)  # few demonstrations leave something to refine


class PolicyOverSeeds(Closed):
    """A policy kind on a task; lists are by seed."""

    successes: list[Count]
    trials: list[Trials]
    rate: Rate  # pooled
    interval: tuple[Rate, Rate]  # Wilson's, of the pooled trials
    imagined: list[Rate]


class TaskOverSeeds(Closed):
    """A task; gains in points."""

    bc: PolicyOverSeeds
    refined: PolicyOverSeeds
    gain_points: list[Points]
    gain_mean: Points
    gain_interval: tuple[float, float]  # over seeds
    p_value: list[Rate]


class Gain(Closed):
    """The mean over tasks, a seed each, and over seeds; in points."""

    by_seed: list[Points]
    mean: Points
    interval: tuple[float, float]


class Agreement(Closed):
    """The world model as an evaluator of checkpoints: imagined against real success of every policy."""

    checkpoints: Count
    pearson: float | None
    mmrv: Rate  # mean over tasks
    mean_gap_points: Error
    largest_gap_points: Error


class Target(Closed):
    """A promise and what came of it."""

    name: str
    found: str
    met: bool


class Benchmark(Closed):
    """`benchmarks/results/demo.json`. Lists are in the order of `seeds`."""

    profile: str
    seeds: list[Count]
    code: str
    machine: dict[str, str | int | float]
    seconds: list[Seconds]  # the stages' work
    wall_seconds: list[Seconds]  # the whole command
    gain: Gain
    tasks: dict[str, TaskOverSeeds]
    agreement: Agreement
    replay: dict[str, list[Rate | None]]
    classifier: dict[str, list[Rate | None]]
    generated: dict[str, list[Rate | None]]
    open_loop_ratio: dict[str, list[Error]]  # error over that of repeating the last frame, by horizon
    targets: list[Target]


def aggregate(
    runs: Mapping[int, Summary],
    *,
    wall_seconds: Mapping[int, float],
    machine: Mapping[str, str | int | float],
    code: str,
    confidence: float = 0.95,
) -> Benchmark:
    """Joins the summaries of several seeds.

    Args:
        runs: A summary a seed; at least two, of the same profile and tasks.
        wall_seconds: How long each seed's command took.
        machine: Where they ran.
        code: Which code ran.
        confidence: Of every interval.

    Raises:
        DataError: the summaries do not belong together.
        ValueError: there are fewer than two.
    """
    seeds = sorted(runs)
    summaries = [runs[seed] for seed in seeds]
    if len({(each.profile, tuple(sorted(each.tasks))) for each in summaries}) != 1:
        raise DataError(
            "the seeds ran different profiles or tasks",
            remedy="remove their working copies below .benchmark/ and run the benchmark again",
        )
    tasks = {task: _task([each.tasks[task] for each in summaries], confidence) for task in summaries[0].tasks}
    gains = [[each.gain_points[index] for each in tasks.values()] for index in range(len(seeds))]
    mean, interval = gain_over_seeds(gains, confidence)
    parts: dict[str, Any] = {
        "gain": Gain(by_seed=[sum(row) / len(row) for row in gains], mean=mean, interval=interval),
        "tasks": tasks,
        "agreement": _agreement(tasks),
        "replay": _columns([each.replay.model_dump() for each in summaries]),
        "classifier": _columns([each.classifier.model_dump(exclude={"generated"}) for each in summaries]),
        "generated": _columns([each.classifier.generated.model_dump() for each in summaries]),
        "open_loop_ratio": _columns(
            [
                {
                    horizon: error / max(each.world_model.copy_last_mse[horizon], 1e-12)
                    for horizon, error in each.world_model.open_loop_mse.items()
                }
                for each in summaries
            ]
        ),
    }
    return Benchmark(
        profile=summaries[0].profile,
        seeds=seeds,
        code=code,
        machine=dict(machine),
        seconds=[each.seconds for each in summaries],
        wall_seconds=[wall_seconds[seed] for seed in seeds],
        targets=_targets(**parts),
        **parts,
    )


def _task(results: Sequence[Any], confidence: float) -> TaskOverSeeds:
    gains = [each.gain_points for each in results]
    mean, interval = gain_over_seeds(gains, confidence)
    policies = {}
    for kind in ("bc", "refined"):
        successes = [getattr(each, kind).successes for each in results]
        trials = [getattr(each, kind).trials for each in results]
        policies[kind] = PolicyOverSeeds(
            successes=successes,
            trials=trials,
            rate=sum(successes) / sum(trials),
            interval=wilson_interval(sum(successes), sum(trials), confidence),
            imagined=[getattr(each.imagined, kind) for each in results],
        )
    return TaskOverSeeds(
        **policies,
        gain_points=gains,
        gain_mean=mean,
        gain_interval=interval,
        p_value=[each.p_value for each in results],
    )


def _columns[T](rows: Sequence[Mapping[str, T]]) -> dict[str, list[T]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def _rates(policies: Sequence[PolicyOverSeeds]) -> tuple[list[float], list[float]]:
    """Real and imagined success of every checkpoint."""
    real = [s / t for each in policies for s, t in zip(each.successes, each.trials, strict=True)]
    return real, [rate for each in policies for rate in each.imagined]


def _agreement(tasks: Mapping[str, TaskOverSeeds]) -> Agreement:
    by_task = [_rates((task.bc, task.refined)) for task in tasks.values()]
    real = [rate for rates, _ in by_task for rate in rates]
    imagined = [rate for _, rates in by_task for rate in rates]
    gaps = [100 * abs(a - b) for a, b in zip(real, imagined, strict=True)]
    return Agreement(
        checkpoints=len(real),
        pearson=pearson(real, imagined),
        mmrv=sum(mean_maximum_rank_violation(*rates) for rates in by_task) / len(by_task),
        mean_gap_points=sum(gaps) / len(gaps),
        largest_gap_points=max(gaps),
    )


def _targets(
    *,
    gain: Gain,
    tasks: Mapping[str, TaskOverSeeds],
    agreement: Agreement,
    replay: Mapping[str, Sequence[float | None]],
    classifier: Mapping[str, Sequence[float | None]],
    open_loop_ratio: Mapping[str, Sequence[float]],
    **_: object,
) -> list[Target]:
    low, high = gain.interval
    worst = min(tasks, key=lambda task: tasks[task].gain_mean)
    cloned = [each.bc.rate for each in tasks.values()]
    ratio = max(value for values in open_loop_ratio.values() for value in values)
    return [
        Target(
            name=f"mean gain at least {points(LEAST_GAIN)} points",
            found=points(gain.mean, 1),
            met=gain.mean >= LEAST_GAIN,
        ),
        Target(
            name="interval of the mean gain above zero",
            found=f"{points(low, 1)} to {points(high, 1)}",
            met=low > 0,
        ),
        Target(
            name="no task worse",
            found=f"least: {pretty(worst).lower()} {points(tasks[worst].gain_mean, 1)}",
            met=tasks[worst].gain_mean >= 0,
        ),
        Target(
            name=f"cloned policies succeed {percent(BC_RANGE[0])} to {percent(BC_RANGE[1])}",
            found=", ".join(percent(rate) for rate in cloned),
            met=all(BC_RANGE[0] <= rate <= BC_RANGE[1] for rate in cloned),
        ),
        Target(
            name=f"imagined within {round(100 * IMAGINED_GAP)} points of real success, every policy",
            found=f"largest gap {number(agreement.largest_gap_points)} points",
            met=round(agreement.largest_gap_points, 9) <= 100 * IMAGINED_GAP,
        ),
        _at_least(
            "replayed expert successes seen as successes", replay["expert_success_recall"], EXPERT_SUCCESS_RECALL
        ),
        _at_least("replayed policy failures seen as failures", replay["policy_failure_recall"], POLICY_FAILURE_RECALL),
        _at_least("classifier precision on held-out rollouts", classifier["precision"], CLASSIFIER_PRECISION),
        Target(
            name="open-loop error below repeating the last frame, every horizon",
            found=f"largest ratio {number(ratio)}",
            met=ratio < 1,
        ),
    ]


def _at_least(name: str, rates: Sequence[float | None], bound: float) -> Target:
    """Met when the mean over seeds reaches the bound, and every seed has a figure."""
    known = [rate for rate in rates if rate is not None]
    mean = sum(known) / len(known) if len(known) == len(rates) else None
    found = ", ".join("unknown" if rate is None else percent(rate) for rate in rates)
    return Target(
        name=f"{name}: at least {percent(bound)}", found=found, met=mean is not None and round(mean, 9) >= bound
    )


def markdown(result: Benchmark) -> str:
    """The result as Markdown tables."""
    seeds = ", ".join(map(str, result.seeds))
    lines = [
        "| task | cloned (BC) | refined | gain, points | imagined: cloned, refined |",
        "|---|---|---|---|---|",
    ]
    for task, each in result.tasks.items():
        imagined = ", ".join(percent(sum(kind.imagined) / len(kind.imagined)) for kind in (each.bc, each.refined))
        lines.append(
            f"| {task} | {_policy(each.bc)} | {_policy(each.refined)} | "
            f"{_gain(each.gain_mean, each.gain_interval, each.gain_points)} | {imagined} |"
        )
    gain = _gain(result.gain.mean, result.gain.interval, result.gain.by_seed)
    lines += [
        f"| **mean** | | | **{gain}** | |",
        "",
        f"Seeds {seeds}. Success: pooled over seeds with Wilson's 95 % interval, then successes of trials a seed. "
        "Gain: mean over seeds with Student's 95 % interval over seeds, then each seed.",
        "",
        "| target | found | met |",
        "|---|---|---|",
        *(f"| {each.name} | {each.found} | {'yes' if each.met else '**no**'} |" for each in result.targets),
        "",
        "| figure | by seed |",
        "|---|---|",
    ]
    rows: list[tuple[str, Sequence[float | None], Callable[[float], str]]] = [
        ("replay: expert successes seen", result.replay["expert_success_recall"], percent),
        ("replay: policy successes seen", result.replay["policy_success_recall"], percent),
        ("replay: policy failures seen", result.replay["policy_failure_recall"], percent),
        ("classifier precision, held-out rollouts", result.classifier["precision"], percent),
        ("classifier recall, held-out rollouts", result.classifier["recall"], percent),
        ("classifier precision, generated frames", result.generated["precision"], percent),
        ("classifier calibration error, held-out rollouts", result.classifier["ece"], number),
        *(
            (f"open-loop error over repeating the last frame, {horizon} steps", ratios, number)
            for horizon, ratios in sorted(result.open_loop_ratio.items(), key=lambda item: int(item[0]))
        ),
        ("work of all stages", result.seconds, duration),
        ("wall time of the command", result.wall_seconds, duration),
    ]
    for name, values, said in rows:
        lines.append(f"| {name} | {', '.join('unknown' if value is None else said(value) for value in values)} |")
    agreement = result.agreement
    correlation = "not defined" if agreement.pearson is None else number(agreement.pearson)
    machine = "; ".join(f"{name.replace('_gb', ' (GB)')} {value}" for name, value in result.machine.items())
    lines += [
        "",
        f"World model as evaluator, {agreement.checkpoints} checkpoints: Pearson r {correlation}, MMRV "
        f"{number(agreement.mmrv)}, mean gap {number(agreement.mean_gap_points)} points.",
        "",
        f"Machine: {machine}. Profile `{result.profile}`, code `{result.code}`.",
    ]
    return "\n".join(lines).replace("\u00a0", " ") + "\n"


def _policy(policy: PolicyOverSeeds) -> str:
    low, high = policy.interval
    seeds = ", ".join(f"{s}/{t}" for s, t in zip(policy.successes, policy.trials, strict=True))
    return f"{percent(policy.rate)} ({percent(low)} to {percent(high)}): {seeds}"


def _gain(mean: float, interval: tuple[float, float], seeds: Sequence[float]) -> str:
    each = ", ".join(points(value, 1) for value in seeds)
    return f"{points(mean, 1)} ({points(interval[0], 1)} to {points(interval[1], 1)}): {each}"
