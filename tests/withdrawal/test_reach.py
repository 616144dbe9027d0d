"""What was made from withdrawn episodes, by the run records."""

from __future__ import annotations

from world4rl.audit.book import Book
from world4rl.audit.versions import history_of
from world4rl.paths import Paths
from world4rl.provenance.digests import digest_files
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode
from world4rl.provenance.manifests import Acceptance, LandedEpisode
from world4rl.provenance.records import GENESIS, Code, Record, Run, subject
from world4rl.provenance.statement import Statement
from world4rl.withdrawal.reach import made_from, sets_reached
from world4rl.withdrawal.selecting import cuts, select

STORE, OTHER, MODEL = "data/store/one/expert", "data/store/two/expert", "models/world_model"
POLICY = "models/one/refined"


def digest(number: int) -> str:
    return f"{number:064x}"


def acceptance(
    id_: str, numbers: tuple[int, ...], operator: str = "ada", derived_from: str | None = None
) -> Acceptance:
    episodes = tuple(
        LandedEpisode(episode=place, task="one", length=3, success=True, digest=digest(number))
        for place, number in enumerate(numbers)
    )
    return Acceptance(
        id=id_,
        name=f"{id_}-folder",
        digest=id_.ljust(64, "0"),
        statement=Statement(operator=operator),
        episodes=episodes,
        derived_from=derived_from,
    )


def stored(dataset: str, numbers: tuple[int, ...]) -> EpisodeSet:
    """The same episodes in a store: 1000 is added to their digests."""
    members = tuple(
        MemberEpisode(episode=place, digest=digest(1000 + number), task="one", length=3, success=True, split="train")
        for place, number in enumerate(numbers)
    )
    return EpisodeSet(dataset=dataset, statement=Statement(), episodes=members)


def run(inputs: dict[str, str], outputs: dict[str, int], sets: dict[str, tuple[str, ...]] | None = None) -> Record[Run]:
    """A run whose outputs are folders with one file each."""
    predicate = Run(
        previous=GENESIS,
        stage="s",
        command="c",
        inputs=tuple(subject(path, sha256) for path, sha256 in inputs.items()),
        outputs=tuple(subject(path, folder(number)) for path, number in outputs.items()),
        episodes=sets or {},
        parameters={},
        code=Code(commit=None, dirty=False, digest="", lock=None),
        machine={},
        began="",
        ended="",
        metrics={},
        orchestrator=None,
    )
    files = tuple(subject(f"{path}/f", digest(number)) for path, number in outputs.items())
    return Record[Run](subject=files, predicateType=predicate.predicate_type, predicate=predicate)


def folder(number: int) -> str:
    return digest_files({"f": digest(number)})


def stores(**numbers: int) -> str:
    """Digest of `data/store` with the expert stores of some tasks in it."""
    return digest_files({f"{task}/expert/f": digest(number) for task, number in numbers.items()})


def book(records: list[Record[Run]], *sets: EpisodeSet) -> Book:
    by_digest = {one.digest: one for one in sets}
    return Book(
        paths=Paths(),
        runs=tuple(records),
        run_files=(),
        decisions=(),
        sets=by_digest,
        acceptances=(),
        faults=(),
    )


def test_a_model_follows_from_the_stores_that_lay_there_when_it_was_trained() -> None:
    withdrawn, clean = stored("a" * 16, (1,)), stored("b" * 16, (2,))
    records = [
        run({}, {STORE: 1}, {STORE: (clean.digest,)}),
        run({"data/store": stores(one=1)}, {MODEL: 10}),
        run({}, {STORE: 2}, {STORE: (clean.digest, withdrawn.digest)}),
        run({}, {OTHER: 3}, {OTHER: (clean.digest,)}),
        run({"data/store": stores(one=2, two=3)}, {MODEL: 11}),
        run({MODEL: folder(11)}, {"models/one/refined": 12}),
        run({MODEL: folder(10)}, {"models/two/refined": 13}),
        run({}, {STORE: 4}, {STORE: (clean.digest,)}),
        run({"data/store": stores(one=4, two=3)}, {MODEL: 14}),
    ]
    history = history_of(book(records, withdrawn, clean))
    found = made_from(history, {withdrawn.digest})
    assert found == {(STORE, folder(2)), (MODEL, folder(11)), ("models/one/refined", folder(12))}
    assert made_from(history, set()) == set()


def test_what_was_trained_on_rollouts_of_a_policy_that_follows_from_the_episodes_follows_too() -> None:
    withdrawn = stored("a" * 16, (1,))
    acted = EpisodeSet(dataset="collected", statement=Statement(policy=folder(5)), episodes=stored("c", (9,)).episodes)
    records = [
        run({}, {STORE: 1}, {STORE: (withdrawn.digest,)}),
        run({STORE: folder(1)}, {POLICY: 5}),
        run({}, {OTHER: 3}, {OTHER: (acted.digest,)}),
        run({OTHER: folder(3)}, {MODEL: 10}),
    ]
    found = made_from(history_of(book(records, withdrawn, acted)), {withdrawn.digest})
    assert found == {(STORE, folder(1)), (POLICY, folder(5)), (OTHER, folder(3)), (MODEL, folder(10))}


def test_an_episode_is_found_in_what_its_dataset_was_before_it_was_cut() -> None:
    before, after, other = stored("a" * 16, (1, 2, 3)), stored("b" * 16, (2, 3)), stored("c" * 16, (4,))
    sets = {one.digest: one for one in (before, after, other)}
    cut = cuts([acceptance("b" * 16, (2, 3), derived_from="a" * 64)], {digest(3)})
    assert sets_reached(sets, cut) == {before.digest, after.digest}
    del sets[after.digest]
    assert sets_reached(sets, cut) == {before.digest}, "it was never stored as it is now: what it was before counts"
    first = cuts([acceptance("c" * 16, (4,))], {digest(4)})
    assert sets_reached(sets, first) == {other.digest}


def test_people_and_digests_and_numbers_name_episodes() -> None:
    accepted = [acceptance("a" * 16, (1, 2)), acceptance("b" * 16, (3,), operator="bob")]
    everything = [one for each in accepted for one in each.episodes]
    assert select(accepted, operator="ada") == everything[:2]
    assert select(accepted, dataset="b" * 16) == everything[2:]
    assert select(accepted, episodes=[f"{'a' * 16}:1", digest(3)], operator="ada") == [
        everything[1],
        everything[2],
        everything[0],
    ]


def test_only_concerned_datasets_are_cut_and_holders_of_copies_are() -> None:
    accepted = [acceptance("a" * 16, (1, 2)), acceptance("b" * 16, (3,)), acceptance("c" * 16, (4,))]
    found = cuts(accepted, {digest(1)}, {"c" * 16})
    assert [(cut.acceptance.id[0], len(cut.keep), len(cut.gone)) for cut in found] == [("a", 1, 1), ("c", 1, 0)]
