"""The house stands as designed: what lies at the top, and which way the arrows point."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from world4rl.paths import SOURCES, Paths
from world4rl.stages import EXECUTION, STAGES

ROOT = Path(__file__).parents[1]
HOUSE = ("world4rl", "assets", "pipelines")
FORBIDDEN = {
    "world4rl": {"dagster", "dagster_pipes", "dvc", "assets", "pipelines", "benchmarks", "tests"},
    "assets": {"pipelines", "benchmarks", "tests"},
    "pipelines": {"benchmarks", "tests"},
    "lerobot_policy_world4rl": {"dagster", "dagster_pipes", "dvc", "assets", "pipelines", "benchmarks", "tests"},
}


def imports(file: Path) -> set[str]:
    """Every module that a file names, wherever the import stands; relative ones resolved."""
    found: set[str] = set()
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_point_one_way(folder):
    files = python_files(folder)
    assert files
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports(file)
        if name.split(".")[0] in FORBIDDEN[folder]
    }
    assert not wrong


def test_the_arrows_are_walked_not_only_allowed():
    def tops(folder):
        return {name.split(".")[0] for file in python_files(folder) for name in imports(file)}

    assert {"assets", "dagster"} <= tops("pipelines")
    assert {"world4rl", "dagster"} <= tops("assets")
    assert "lerobot" in tops("world4rl")


def test_no_module_depends_on_itself():
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for folder in HOUSE
        for file in python_files(folder)
    }

    def own(name: str) -> str | None:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    def at_import(file: Path) -> set[str]:
        """Imports that run when the module is loaded: a function's own, and those for type checkers, do not."""
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        return found

    graph = {
        name: {target for imported in at_import(file) if (target := own(imported)) and target != name}
        for name, file in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_top_level_is_the_designs():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    needed = {
        *("world4rl", "assets", "pipelines", "tests", "benchmarks", "docs", "lerobot_policy_world4rl"),
        *("dvc.yaml", "params.yaml", "workspace.yaml", "pyproject.toml", "requirements.in", "requirements.lock"),
        *("Makefile", "README.md", "LICENSE", ".ci"),
    }
    allowed = {".dvc", ".dvcignore", ".gitignore", ".gitattributes", "dvc.lock", "scripts", "keys"}
    assert needed <= top
    assert top <= needed | allowed


def test_nothing_large_is_tracked_and_no_lock_names_a_package_index():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert not [file for file in files if file.is_file() and file.stat().st_size > 2_000_000]
    for name in ("requirements.in", "requirements.lock", "pyproject.toml"):
        assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_the_method_loads_without_the_orchestrator():
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in python_files("world4rl")
        if file.name not in ("__init__.py", "__main__.py")
    ]
    script = f"""
import importlib, sys
for name in ("dagster", "dagster_pipes", "dvc", "assets", "pipelines"):
    sys.modules[name] = None  # importing it fails
for module in {modules!r}:
    importlib.import_module(module)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=280
    )
    assert result.returncode == 0, result.stderr


def test_every_stage_names_a_function_that_takes_what_it_is_given():
    for stage in STAGES.values():
        module, _, name = stage.function.partition(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert len(functions) == 1, stage.function
        expected = ["params", "paths", "task"] if stage.per_task else ["params", "paths"]
        assert [argument.arg for argument in functions[0].args.args] == expected, stage.function
        assert not set(EXECUTION) & set(stage.sections)


def test_every_artefact_has_a_place_of_its_own_below_the_root(tmp_path):
    paths = Paths(tmp_path)
    task = "button-press-topdown-v3"
    places = [
        *(paths.raw(task, source) for source in SOURCES),
        *(paths.store(task, source) for source in SOURCES),
        *(paths.collect_metrics(task, source) for source in SOURCES),
        *(paths.store_report(task, "expert"), paths.store_report(task, "rollouts")),
        *(paths.bc(task), paths.bc_metrics(task), paths.bc_curve(task)),
        *(paths.refined(task), paths.refined_metrics(task), paths.refined_curve(task)),
        *(paths.evaluation(task), paths.evaluation_metrics(task)),
        *(paths.world_model, paths.world_model_metrics, paths.world_model_curve),
        *(paths.classifier, paths.classifier_metrics, paths.classifier_curve),
        *(paths.fidelity, paths.fidelity_metrics, paths.report, paths.summary, paths.params),
        *(paths.champions(task), paths.challenge_report(task), paths.decisions, paths.trusted_keys),
        *(paths.run_state("refine", task), paths.run_state("train-world-model")),
    ]
    assert len(set(places)) == len(places)
    assert all(place.is_relative_to(tmp_path) for place in places)
    assert not any(a != b and b.is_relative_to(a) for a in places for b in places), "one artefact lies inside another"
    assert list(tmp_path.iterdir()) == []
