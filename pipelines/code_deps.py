"""Which modules define a stage's work: what `deps` of `dvc.yaml` must list, found by following imports.

`python -m pipelines.code_deps` prints what is wrong in `dvc.yaml`; with `--write` it mends the file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from world4rl.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("world4rl", "lerobot_policy_world4rl")
# They say how a stage is started, told about and kept safe, not what it computes. Parameters are hashed by value.
PLUMBING = frozenset(
    f"world4rl/{name}.py"
    for name in (
        *("__init__", "cli", "config", "errors", "files", "machine", "paths", "progress", "runner", "stages"),
        *("provenance/git", "provenance/keys", "provenance/notes", "provenance/signatures"),
    )
)


def code_of(command: str, root: Path = ROOT) -> list[str]:
    """Files that define the work of a stage, relative to the root, sorted.

    Args:
        command: Key of `STAGES`.
        root: The repository.
    """
    module, _, _ = STAGES[command].function.partition(":")
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for path in _files(waiting.pop(), root):
            name = path.relative_to(root).as_posix()
            if name in found or name in PLUMBING:
                continue
            found.add(name)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            waiting += _imports(tree, path.relative_to(root))
            found |= {file.relative_to(root).as_posix() for file in _templates(tree, root)}
    return sorted(found)


def _files(module: str, root: Path) -> Iterator[Path]:
    """A module's file, and those of the packages above it that hold code."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[:depth])
        for path in (folder / "__init__.py", folder.with_suffix(".py")):
            if path.is_file() and path.stat().st_size:
                yield path


def _templates(tree: ast.AST, root: Path) -> Iterator[Path]:
    """Templates of the packages that a module names in a text, as `world4rl.pages` takes them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            package = node.value.split(".")
            if package[0] in PACKAGES and all(part.isidentifier() for part in package):
                yield from root.joinpath(*package, "templates").glob("*")


def _imports(tree: ast.AST, file: Path) -> Iterator[str]:
    """Names of the repository's modules that a module imports, anywhere in it but for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(file.parts[: len(file.parts) - node.level]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            yield from _imports(node, file)
            continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


def wrong_steps(definition: dict[str, Any], root: Path = ROOT) -> dict[str, list[str]]:
    """Steps of `dvc.yaml` whose code is listed wrongly, with the code that they should list."""
    wrong = {}
    for step, stage in definition["stages"].items():
        listed = [dep for dep in stage["deps"] if dep.partition("/")[0] in PACKAGES]
        needed = code_of(stage["cmd"].split()[1], root)
        if listed != needed:
            wrong[step] = needed
    return wrong


def main() -> int:
    """Compares, or mends, `dvc.yaml`; returns the exit status."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    file = ROOT / "dvc.yaml"
    definition = yaml.load(file.read_text(encoding="utf-8"))
    wrong = wrong_steps(definition)
    for step, needed in wrong.items():
        print(f"{step}: {', '.join(needed)}")
        deps = definition["stages"][step]["deps"]
        deps[:] = needed + [dep for dep in deps if dep.partition("/")[0] not in PACKAGES]
        deps.fa.set_block_style()
    if wrong and "--write" in sys.argv[1:]:
        with file.open("w", encoding="utf-8") as target:
            yaml.dump(definition, target)
        return 0
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
