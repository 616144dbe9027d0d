"""Git, as far as the lineage needs it: what is checked out, and commits that touch neither branch, index nor files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from world4rl.errors import MachineError

LINEAGE = "refs/world4rl/lineage"  # every state after a run that went well is a commit of it
SECONDS = 120.0
SHA1_DIGITS = 40
NOBODY = ("World4RL", "world4rl@localhost")  # commits where the user has not told Git who they are
# Git sets them for its hooks: they would put another repository, or the user's index, in the place of the folder's.
ELSEWHERE = frozenset(
    f"GIT_{name}"
    for name in (
        *("DIR", "WORK_TREE", "INDEX_FILE", "COMMON_DIR", "PREFIX", "NAMESPACE"),
        *("OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES"),
    )
)


class Git:
    """The repository that a folder lies in.

    Args:
        root: A folder of its working tree.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def found(self) -> bool:
        """Whether there is a repository, and Git."""
        return self._try("rev-parse", "--git-dir") is not None

    def prefix(self) -> str:
        """The folder's path in the repository with a slash behind it; empty at the top."""
        return self._try("rev-parse", "--show-prefix") or ""

    def resolve(self, name: str) -> str | None:
        """The object that a name stands for; None where there is none."""
        return self._try("rev-parse", "--verify", "--quiet", name)

    def is_ancestor(self, commit: str, of: str) -> bool:
        """Whether a commit is another one or came before it."""
        return self._try("merge-base", "--is-ancestor", commit, of) is not None

    def dirty(self) -> bool:
        """Whether tracked files differ from the commit that is checked out."""
        return bool(self._try("status", "--porcelain", "--untracked-files=no"))

    def files(self, tree: str, *below: str) -> dict[str, str]:
        """Blobs by path in a tree or commit, perhaps only below some folders of it."""
        text = self.run("ls-tree", "-r", "-z", "--full-tree", tree, "--", *below)
        found = {}
        for line in filter(None, text.split("\0")):
            about, _, path = line.partition("\t")
            found[path] = about.split()[2]
        return found

    def read(self, blob: str) -> bytes:
        """The bytes of a blob."""
        return self._run(["cat-file", "blob", blob])

    def store(self, paths: Sequence[Path]) -> list[str]:
        """Stores files as they are; returns their blobs."""
        if not paths:
            return []
        names = "".join(f"{path.absolute()}\n" for path in paths)
        return self.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names.encode()).split()

    def store_bytes(self, content: bytes) -> str:
        """Stores bytes; returns their blob."""
        return self.run("hash-object", "-w", "--no-filters", "--stdin", stdin=content).strip()

    def tree(self, base: str | None, blobs: Mapping[str, str | None]) -> str:
        """Makes a tree: a base with some files put in, replaced, or, where the blob is None, taken out.

        Args:
            base: A tree or commit; None: an empty one.
            blobs: By path in the repository.
        """
        lines = (
            f"100644 {blob}\t{path}\0" if blob is not None else f"0 {'0' * 40}\t{path}\0"
            for path, blob in blobs.items()
        )
        with TemporaryDirectory() as folder:  # an index of our own: the user's is not looked at
            own = {"GIT_INDEX_FILE": f"{folder}/index"}
            self._run(["read-tree", base or "--empty"], extra=own)
            self._run(["update-index", "-z", "--index-info"], extra=own, stdin="".join(lines).encode())
            return self._run(["write-tree"], extra=own).decode().strip()

    def commit(self, tree: str, parent: str | None, message: str) -> str:
        """Makes a commit of a tree; nothing points at it yet."""
        parents = [] if parent is None else ["-p", parent]
        arguments = ["commit-tree", tree, *parents, "-F", "-"]
        return self._run(arguments, extra=self._author(), stdin=message.encode()).decode().strip()

    def point(self, ref: str, commit: str, before: str | None) -> bool:
        """Has a ref point at a commit, if it still points where it did before; says whether it does."""
        return self._try("update-ref", ref, commit, before or "") is not None

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """What a command prints.

        Raises:
            MachineError: it failed.
        """
        return self._run(list(arguments), stdin=stdin).decode(errors="surrogateescape")

    def _author(self) -> dict[str, str]:
        if self._try("var", "GIT_COMMITTER_IDENT") is not None and self._try("var", "GIT_AUTHOR_IDENT") is not None:
            return {}
        name, address = NOBODY
        return {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", name), ("EMAIL", address))
        }

    def _try(self, *arguments: str) -> str | None:
        try:
            return self.run(*arguments).strip()
        except MachineError:
            return None

    def _run(self, arguments: list[str], *, stdin: bytes = b"", extra: Mapping[str, str] | None = None) -> bytes:
        # Looking must not lock out a person's own commands.
        own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        environment = {**own, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(extra or {})}
        try:
            result = subprocess.run(
                ["git", *arguments], cwd=self.root, env=environment, input=stdin, capture_output=True, timeout=SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MachineError(f"Git cannot be run: {error}", where=self.root, remedy="install Git") from None
        if result.returncode:
            problem = result.stderr.decode(errors="replace").strip()
            raise MachineError(f"`git {arguments[0]}` failed: {problem}", where=self.root, remedy="see what Git says")
        return result.stdout


def blob_of(content: bytes, like: str) -> str:
    """The name that Git gives to bytes, by the hash of another blob of the repository."""
    kind = "sha1" if len(like) == SHA1_DIGITS else "sha256"
    return hashlib.new(kind, b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
