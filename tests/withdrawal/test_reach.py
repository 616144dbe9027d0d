"""What was made from withdrawn episodes, by the run records, and who runs it."""

from __future__ import annotations

from world4rl.provenance.decisions import Deployment, Promotion, Rollback
from world4rl.provenance.episodes import EpisodeSet, MemberEpisode
from world4rl.provenance.manifests import Acceptance, LandedEpisode
from world4rl.provenance.records import GENESIS, Code, Predicate, Record, Run, subject
from world4rl.provenance.statement import Statement
from world4rl.withdrawal.reach import deployed, made_from, needed, sets_reached
from world4rl.withdrawal.selecting import cuts, select

STORE, OTHER, MODEL = "data/store/one/expert", "data/store/two/expert", "models/world_model"


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


def run(inputs: dict[str, int], outputs: dict[str, int], sets: dict[str, tuple[str, ...]] | None = None) -> Record[Run]:
    predicate = Run(
        previous=GENESIS,
        stage="s",
        command="c",
        inputs=tuple(subject(path, digest(number)) for path, number in inputs.items()),
        outputs=tuple(subject(path, digest(number)) for path, number in outputs.items()),
        episodes=sets or {},
        parameters={},
        code=Code(commit=None, dirty=False, digest="", lock=None),
        machine={},
        began="",
        ended="",
        metrics={},
        orchestrator=None,
    )
    return record(predicate)


def record[P: Predicate](predicate: P) -> Record[P]:
    return Record[P](subject=(), predicateType=predicate.predicate_type, predicate=predicate)


def test_a_model_follows_from_the_stores_that_lay_there_when_it_was_trained() -> None:
    withdrawn, clean = stored("a" * 16, (1,)), stored("b" * 16, (2,))
    records = [
        run({}, {STORE: 1}, {STORE: (clean.digest,)}),
        run({"data/store": 90}, {MODEL: 10}),
        run({}, {STORE: 2}, {STORE: (clean.digest, withdrawn.digest)}),
        run({}, {OTHER: 3}, {OTHER: (clean.digest,)}),
        run({"data/store": 91}, {MODEL: 11}),
        run({MODEL: 11}, {"models/one/refined": 12}),
        run({MODEL: 10}, {"models/two/refined": 13}),
        run({}, {STORE: 4}, {STORE: (clean.digest,)}),
        run({"data/store": 92}, {MODEL: 14}),
    ]
    found = made_from(records, {withdrawn.digest})
    assert found == {(STORE, digest(2)), (MODEL, digest(11)), ("models/one/refined", digest(12))}
    assert made_from(records, set()) == set()


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


def test_what_runs_now_and_what_is_champion_now_is_relied_on() -> None:
    said = {"at": "t", "by": "b", "because": "c"}
    decisions = [
        record(Deployment(**said, robot="arm", task="one", policy=digest(1))),
        record(Deployment(**said, robot="arm", task="one", policy=digest(2))),
        record(Deployment(**said, robot="leg", task="one", policy=digest(3))),
        record(Deployment(**said, robot="leg", task="one", policy=None)),
        record(Promotion(**said, task="one", policy=digest(4), replaces=None, evidence={})),
        record(Promotion(**said, task="one", policy=digest(5), replaces=digest(4), evidence={})),
        record(Rollback(**said, task="one", policy=digest(4), replaces=digest(5))),
    ]
    assert deployed(decisions) == [{"robot": "arm", "task": "one", "policy": digest(2)}]
    assert needed(decisions) == {digest(2), digest(4)}
