"""Is this bit-identical to what was trained? Names every file that differs, is missing, or that nobody made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from world4rl.audit.answers import Answer, Table, answer, count, short
from world4rl.audit.book import Book
from world4rl.audit.find import files_of, find, relative
from world4rl.audit.versions import History, Version, is_landed, parents_of
from world4rl.errors import DataError
from world4rl.promotion.champions import folder_of
from world4rl.provenance import keys
from world4rl.provenance.decisions import Promotion, Withdrawal
from world4rl.provenance.digests import digest_file, digest_files
from world4rl.provenance.git import LINEAGE, Git, blob_of
from world4rl.provenance.manifests import build_manifest, manifest_text
from world4rl.provenance.signatures import verify_model


@dataclass(frozen=True)
class Difference:
    """A file that is not as it was made.

    Attributes:
        file: Which.
        problem: `differs`, `is missing`, `is unknown`, or what else is wrong.
        was: The digest that it should have; None where nothing should be there.
        found: The digest that it has; None where nothing is there.
        note: What it is instead, as far as that is known.
    """

    file: str
    problem: str
    was: str | None = None
    found: str | None = None
    note: str = ""


def verify(book: Book, history: History, asked: Sequence[str] = ()) -> Answer:
    """Compares files with the records.

    Args:
        book: The records.
        history: Their history.
        asked: Files and folders, anywhere; without any: every current artefact and every record.

    Raises:
        DataError: there is no such file.
    """
    if not asked or any(relative(book, Path(one)) == "." for one in asked):
        return _everything(book, history)
    compared: list[tuple[str, tuple[Version, ...]]] = []
    differences: list[Difference] = []
    for each in asked:
        versions, found = _compare_asked(book, history, each)
        compared.append((each, versions))
        differences += found
    what = asked[0] if len(asked) == 1 else count(len(asked), "path")
    same = f"{what} is bit-identical to what was made: {', '.join(str(one) for _, all_ in compared for one in all_)}."
    return _tell(book, f"Is {what} what was trained?", same, differences, compared)


def _everything(book: Book, history: History) -> Answer:
    versions, differences, absent = _artefacts(book, history, sorted(history.current.values()))
    differences += [*_champions(book, history), *_acceptances(book, history), *_manifests(book, history)]
    differences += [*_keys(book), *_kept(book, history)]
    differences += _signatures(book, history, [one.file for one in differences])
    same = f"All {count(len(versions), 'artefact')} are bit-identical to what was made."
    sentences = [f"Not here, {why}: {', '.join(paths)}." for why, paths in absent.items()]
    compared = [(one.path, (one,)) for one in versions]
    return _tell(book, "Is everything what was made?", same, differences, compared, sentences)


def _artefacts(
    book: Book, history: History, versions: Iterable[Version]
) -> tuple[list[Version], list[Difference], Mapping[str, list[str]]]:
    """Compares artefacts with what lies in their places.

    Returns:
        Those that were compared; the differences; paths of those that need not be here, by the reason.
    """
    compared: list[Version] = []
    differences: list[Difference] = []
    absent = defaultdict(list)
    for version in versions:
        place = book.paths.root / version.path
        why = None if place.exists() else _may_be_gone(book, history, version)
        if why is not None:
            absent[why].append(version.path)
            continue
        compared.append(version)
        differences += _pending(book, history, version, _compare(history, version, place))
    return compared, differences, absent


def _may_be_gone(book: Book, history: History, version: Version) -> str | None:
    """Why an artefact need not be here; None where it should be."""
    affected = {(one.name, one.sha256) for each in book.decided(Withdrawal) for one in each.affected}
    if (version.path, version.digest) in affected:
        return "because of a withdrawal"
    tasks = _tasks(book)
    _, _, task = book.runs[history.made_by[version][-1]].predicate.stage.partition("@")
    return "of tasks that the parameters no longer name" if task and tasks and task not in tasks else None


def _tasks(book: Book) -> list[str] | None:
    """The tasks that the parameters name; None where these cannot be read."""
    try:
        return [str(task) for task in yaml.safe_load(book.paths.params.read_text(encoding="utf-8"))["tasks"]]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None


def _pending(book: Book, history: History, version: Version, found: list[Difference]) -> list[Difference]:
    """The differences of a folder of accepted datasets without those that its stage will only come to.

    A dataset that was accepted since its last run must be what was accepted; one that was withdrawn may be gone.
    """
    if not is_landed(version.path) or not found:
        return found
    folder = book.paths.root / version.path
    right = {
        one.id
        for one in book.acceptances
        if one.id not in history.datasets[version]
        and (folder / one.id).is_dir()
        and digest_files(files_of(folder / one.id)) == one.digest
    }
    withdrawn = {one for one in book.withdrawn_datasets if not (folder / one).exists()}
    return [one for one in found if one.file[len(version.path) + 1 :].split("/")[0] not in right | withdrawn]


def _tell(
    book: Book,
    question: str,
    same: str,
    differences: Sequence[Difference],
    compared: Sequence[tuple[str, tuple[Version, ...]]],
    sentences: Sequence[str] = (),
) -> Answer:
    headline = same
    if differences:
        headline = f"No: {count(len(differences), 'file')} {'is' if len(differences) == 1 else 'are'} not as made."
    elif book.faults:
        headline = "The files are those on record, but the records are not whole."
    return answer(
        book,
        question,
        headline,
        "bad" if differences else "good",
        {
            "identical": not differences,
            "differences": [vars(one) for one in differences],
            "compared": [
                {"path": path, "with": [{"path": one.path, "sha256": one.digest} for one in versions]}
                for path, versions in compared
            ],
        },
        sentences=sentences,
        blocks=(
            Table(
                "Not as made",
                ("file", "", "made as", "is", "note"),
                [
                    (one.file, one.problem, short(one.was or ""), short(one.found or ""), one.note)
                    for one in differences
                ],
            ),
            Table(
                "Compared",
                ("path", "with"),
                [(path, ", ".join(map(str, versions)) or "nothing on record") for path, versions in compared],
            ),
        ),
    )


def _compare_asked(book: Book, history: History, asked: str) -> tuple[tuple[Version, ...], list[Difference]]:
    current = history.current
    path = next((one for one in (Path(asked), book.paths.root / asked) if one.exists()), None)
    name = None if path is None else relative(book, path)
    if path is None:
        if asked in current:
            return (current[asked],), _compare(history, current[asked], book.paths.root / asked)
        raise DataError("there is no such file", where=asked, remedy="give a file or folder")
    if name is not None:
        owner = next((current[one] for one in current if _holds(one, name)), None)
        below = [current[one] for one in history.children(name)]
        if owner is not None:
            return (owner,), _compare(history, owner, path, inside=name)
        if below:
            compared, differences, _ = _artefacts(book, history, below)
            differences += [one for one in _champions(book, history) if _holds(name, one.file)]
            return tuple(compared), [*differences, *_strangers(book, history, path, name)]
    found = find(book, history, asked)
    if found.exact:
        return found.versions, []
    if not found.versions:
        return (), [Difference(asked, "is unknown", found=found.digest, note="no run made these bytes")]
    nearest = found.versions[0]
    return (nearest,), _compare_files(history, history.files[nearest], files_of(path), asked)


def _compare(history: History, version: Version, path: Path, *, inside: str = "") -> list[Difference]:
    """Compares an artefact, or a file or folder inside of it, with a version."""
    expected = history.files[version]
    below = inside[len(version.path) + 1 :] if inside else ""
    if below:
        expected = {
            one[len(below) + 1 :] or ".": digest
            for one, digest in expected.items()
            if f"{one}/".startswith(f"{below}/")
        }
    shown = inside or version.path
    if not path.exists():
        return [Difference(shown, "is missing", was=version.digest, note="`dvc pull` brings it back")]
    try:
        return _compare_files(history, expected, files_of(path), shown)
    except DataError as error:
        return [Difference(error.where or shown, error.problem)]


def _strangers(book: Book, history: History, folder: Path, shown: str) -> Iterator[Difference]:
    """Files of a folder of the repository that belong to no artefact, to no champion and to no record."""
    paths = book.paths
    others = (paths.records, paths.decisions, paths.accepted, paths.generations, paths.signatures, paths.all_champions)
    parents = (paths.manifest("any").parent, paths.episode_set("any").parent, paths.audit("any").parent)
    reports = (paths.quarantine, paths.challenge_report("any").parent)
    known = {*history.current, *(relative(book, one) for one in (*others, *parents, *reports))}
    for file in sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix != ".lock"):
        name = f"{shown}/{file.relative_to(folder).as_posix()}"
        if not {name, *parents_of(name)} & known:
            yield Difference(name, "is unknown", found=digest_file(file), note="no run made it")


def _compare_files(
    history: History, expected: Mapping[str, str], found: Mapping[str, str], shown: str
) -> list[Difference]:
    def name(file: str) -> str:
        return shown if file == "." else f"{shown}/{file}"

    differences = []
    for file in sorted(expected.keys() | found.keys()):
        was, now = expected.get(file), found.get(file)
        if was == now:
            continue
        problem = "is unknown" if was is None else "is missing" if now is None else "differs"
        differences.append(Difference(name(file), problem, was, now, _known_as(history, now)))
    return differences


def _known_as(history: History, digest: str | None) -> str:
    """What a file is that is not what it should be."""
    for version in reversed(history.made_by):
        if digest is not None and digest in history.files[version].values():
            return f"it is a file of {version}"
    return ""


def _holds(path: str, name: str) -> bool:
    return f"{name}/".startswith(f"{path}/")


def _champions(book: Book, history: History) -> Iterator[Difference]:
    """Kept copies of policies that were champions; what was made from withdrawn episodes may be gone."""
    promoted = {folder_of(book.paths, one.task, one.policy): one.policy for one in book.decided(Promotion)}
    gone = {each.sha256 for one in book.decided(Withdrawal) for each in one.affected}
    versions = {version.digest: version for version in history.made_by}
    for folder in sorted({*book.paths.all_champions.glob("*/*"), *promoted}):
        shown = relative(book, folder) or str(folder)
        digest = promoted.get(folder)
        if not folder.exists():
            if digest not in gone:
                note = "`dvc pull` in a state of the lineage brings it back"
                yield Difference(shown, "is missing", was=digest, note=note)
            continue
        if digest is None:
            yield Difference(shown, "is unknown", note="no decision made it a champion")
        elif digest in versions:
            yield from _compare_files(history, history.files[versions[digest]], files_of(folder), shown)
        elif digest_files(files_of(folder)) != digest:
            yield Difference(shown, "differs", was=digest)


def _acceptances(book: Book, history: History) -> Iterator[Difference]:
    """Records of accepted datasets that are missing, and datasets that were accepted and lie nowhere."""
    verified = {dataset: path for path in history.current for dataset in history.datasets[history.current[path]]}
    known = {one.id for one in book.acceptances} | book.withdrawn_datasets.keys()
    for dataset in sorted(verified.keys() - known):
        file = book.paths.accepted / f"{dataset}.json"
        if not file.exists():  # one that does not hold is a fault of the book
            note = f"of a dataset in {verified[dataset]}; the lineage branch has it"
            yield Difference(relative(book, file) or str(file), "is missing", note=note)
    for one in book.acceptances:
        for task in sorted({episode.task for episode in one.episodes}):
            landed = book.paths.landed(task, one.statement.source)
            version = history.current.get(relative(book, landed) or str(landed))
            if (version is None or one.id not in history.datasets[version]) and not (landed / one.id).is_dir():
                name = relative(book, landed / one.id) or str(landed / one.id)
                yield Difference(name, "is missing", was=one.digest, note=f"it was accepted as {one.name}")


def _manifests(book: Book, history: History) -> Iterator[Difference]:
    """Manifests that are neither what a run read last nor what follows from the accepted datasets, or are missing."""
    if any(fault.file.startswith(str(book.paths.accepted)) for fault in book.faults):
        return  # what follows from records that do not hold cannot be told
    read = {link.read for links in history.links for link in links}
    for task in _tasks(book) or ():
        name = relative(book, book.paths.manifest(task)) or str(book.paths.manifest(task))
        if not book.paths.manifest(task).exists() and any(one.path == name for one in read):
            yield Difference(name, "is missing", note="`world4rl manifests` makes it again")
    for path in sorted(book.paths.manifest("any").parent.glob("*.json")):
        name, digest = relative(book, path) or str(path), digest_file(path)
        if Version(name, digest) not in read:
            follows = manifest_text(build_manifest(path.stem, book.acceptances)).encode()
            if path.read_bytes() != follows:
                yield Difference(name, "differs", found=digest, note="`world4rl manifests` makes it again")


def _kept(book: Book, history: History) -> Iterator[Difference]:
    """Records, decisions, signatures and measurements of generations that the lineage branch has otherwise.

    A chain that was cut at its end looks whole, and of a model that is gone nothing else says what its signature or its
    measurements were.
    """
    root, git = book.paths.root, Git(book.paths.root)
    commit = git.resolve(LINEAGE) if git.found() else None
    if commit is None:
        return
    head = git.resolve("HEAD")
    if head is not None and git.is_ancestor(head, commit):  # an earlier state is checked out here
        commit = head
    prefix = git.prefix()
    kept = (book.paths.records, book.paths.decisions, book.paths.signatures, book.paths.generations)
    found = git.files(commit, *(f"{prefix}{relative(book, folder)}" for folder in kept))
    changing = f"{relative(book, book.paths.signatures)}/places/"  # `_signatures` knows what they should say
    model = history.current.get(relative(book, book.paths.world_model) or "")
    measured = None  # what a run that the branch does not know yet may have written anew
    if model is not None and f"{prefix}{relative(book, book.run_files[-1])}" not in found:
        measured = relative(book, book.paths.generation(model.digest))
    for path, blob in sorted(found.items()):
        name = path.removeprefix(prefix)
        if name.startswith(changing) or name == measured:
            continue
        file = root / name
        if not file.is_file() or blob_of(file.read_bytes(), like=blob) != blob:
            problem = "differs" if file.is_file() else "is missing"
            yield Difference(name, problem, note=f"the lineage branch has it: git show {commit[:12]}:{path}")


def _keys(book: Book) -> Iterator[Difference]:
    """Public keys that cannot be read, or that are written as no program writes them."""
    for path in sorted(book.paths.trusted_keys.glob("*.pem")):
        name = relative(book, path) or str(path)
        try:
            whole = keys.write_public(keys.read_public(path)) == path.read_bytes().decode("ascii", "replace")
        except DataError as error:
            yield Difference(name, error.problem, note=error.remedy or "")
        else:
            if not whole:
                yield Difference(name, "differs", note="restore it with Git")


def _signatures(book: Book, history: History, differing: Sequence[str]) -> Iterator[Difference]:
    """Signatures of the current models and the kept champions that are not right, and models that should have one.

    Args:
        book: The records.
        history: Their history.
        differing: Files that are not what was made: of a model with one of them no signature can be right.
    """
    whole = {path: one.digest for path, one in sorted(history.current.items()) if path.startswith("models/")}
    promoted = book.decided(Promotion)
    champions = {relative(book, folder_of(book.paths, one.task, one.policy)) or "": one.policy for one in promoted}
    for path, digest in {**whole, **champions}.items():
        folder = book.paths.root / path
        if not folder.is_dir() or any(_holds(path, one) for one in differing):
            continue
        signature, place = book.paths.signature(digest), book.paths.signed_place(Path(path))
        files = [signature, *([place] if path in whole else [])]  # a champion moved: only its content says what it is
        for file in files:
            if not file.is_file():
                yield Difference(
                    relative(book, file) or str(file), "is missing", note=f"`world4rl record` signs {path}"
                )
        if all(file.is_file() for file in files):
            if path in whole and place.read_bytes() != f"{digest}\n".encode():
                note = f"it should name {digest[:12]}, which lies in {path}"
                yield Difference(relative(book, place) or str(place), "differs", note=note)
                continue
            try:
                verify_model(folder)
            except DataError as error:
                yield Difference(relative(book, signature) or str(signature), error.problem, note=f"of {path}")
