"""The stages of the lineage: the command, the function that does the work, and the parameters it may read.

`dvc.yaml` declares a stage's parameters as dependencies; a stage that read others would not be run again when they
change. So a stage sees only what stands here (`runner.visible_params`); a test holds `dvc.yaml` and this table equal.
"""

from __future__ import annotations

from dataclasses import dataclass

# About the machine, not about the result: no stage is run again because of them.
EXECUTION = ("device", "threads", "signatures")


@dataclass(frozen=True)
class Stage:
    """One step of the lineage.

    Attributes:
        command: Its name on the command line.
        summary: What it does, in a line.
        function: `module:name`, called with (params, paths, task), or (params, paths) when not `per_task`.
        per_task: Whether it runs once a task.
        sections: Fields of `Params` that it may read beside those of `EXECUTION`. Of `task_parameters` a stage sees its
            own task's entry only.
        metrics: The JSON metrics that it writes, below the root, with `{task}` for the task.
        renders: Whether it draws the simulator's frames.
    """

    command: str
    summary: str
    function: str
    per_task: bool
    sections: tuple[str, ...]
    metrics: str
    renders: bool = False


STAGES: dict[str, Stage] = {
    stage.command: stage
    for stage in (
        Stage(
            "collect-demos",
            "Record the scripted expert's demonstrations as a LeRobot dataset.",
            "world4rl.demos.collect:collect_demos",
            True,
            ("seed", "task_parameters", "simulation", "demonstrations"),
            metrics="reports/data/{task}/collect-expert.json",
            renders=True,
        ),
        Stage(
            "verify-landed",
            "Make sure that a task's accepted datasets are there, whole.",
            "world4rl.landing.verify:verify",
            True,
            (),
            metrics="reports/data/{task}/landed.json",
        ),
        Stage(
            "store-demos",
            "Check the demonstrations and convert them into Zarr stores.",
            "world4rl.demos.storing:store_demos",
            True,
            ("store", "simulation", "reading"),
            metrics="reports/data/{task}/expert.json",
        ),
        Stage(
            "train-bc",
            "Clone the demonstrations into a Gaussian policy.",
            "world4rl.training.behaviour_cloning:train",
            True,
            ("seed", "behaviour_cloning"),
            metrics="reports/bc/{task}.json",
        ),
        Stage(
            "collect-policy",
            "Record rollouts of the cloned policy as a LeRobot dataset.",
            "world4rl.demos.collect:collect_policy",
            True,
            ("seed", "simulation", "rollouts"),
            metrics="reports/data/{task}/collect-policy.json",
            renders=True,
        ),
        Stage(
            "collect-random",
            "Record uniform-random rollouts as a LeRobot dataset.",
            "world4rl.demos.collect:collect_random",
            True,
            ("seed", "simulation", "rollouts"),
            metrics="reports/data/{task}/collect-random.json",
            renders=True,
        ),
        Stage(
            "store-rollouts",
            "Check both kinds of rollouts and convert them into Zarr stores.",
            "world4rl.demos.storing:store_rollouts",
            True,
            ("store", "simulation", "reading"),
            metrics="reports/data/{task}/rollouts.json",
        ),
        Stage(
            "train-world-model",
            "Train the diffusion world model on all tasks.",
            "world4rl.training.denoiser:train",
            False,
            ("seed", "tasks", "world_model"),
            metrics="reports/world_model.json",
        ),
        Stage(
            "train-classifier",
            "Train the success classifier on all tasks.",
            "world4rl.training.classifier:train",
            False,
            ("seed", "tasks", "classifier"),
            metrics="reports/success_classifier.json",
        ),
        Stage(
            "evaluate-world-model",
            "Measure the world model against held-out episodes.",
            "world4rl.evaluation.fidelity:evaluate",
            False,
            ("seed", "tasks", "evaluation"),
            metrics="reports/fidelity.json",
        ),
        Stage(
            "refine",
            "Refine the cloned policy by PPO inside the frozen world model.",
            "world4rl.training.ppo:refine",
            True,
            ("seed", "tasks", "refinement"),
            metrics="reports/refined/{task}.json",
        ),
        Stage(
            "evaluate",
            "Try the cloned and the refined policy in the simulator on the same seeds.",
            "world4rl.evaluation.trials:evaluate",
            True,
            ("seed", "tasks", "simulation", "evaluation"),
            metrics="reports/evaluation/{task}.json",
            renders=True,
        ),
        Stage(
            "report",
            "Write the HTML report and its figures as JSON.",
            "world4rl.evaluation.report:write_report",
            False,
            (
                "profile",
                "seed",
                "tasks",
                "task_parameters",
                "simulation",
                "demonstrations",
                "rollouts",
                "store",
                "reading",
                "world_model",
                "classifier",
                "behaviour_cloning",
                "refinement",
                "evaluation",
                "gates",
            ),  # the page shows every one of them
            metrics="reports/summary.json",
        ),
    )
}
