"""Which objects go: all that only withdrawn datasets use, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from world4rl.withdrawal.objects import doomed

IDS = [f"{number:016x}" for number in range(6)]
files = st.sampled_from(["data.parquet", "meta/info.json", "meta/tasks.parquet"])
objects = st.sampled_from([f"object-{number}" for number in range(12)])
trees = st.lists(
    st.dictionaries(
        st.one_of(
            st.builds("{}/{}".format, st.sampled_from(IDS), files),
            st.builds("collected/{}".format, files),
            st.sampled_from(["manifest.json", "model.safetensors"]),
        ),
        objects,
    ),
    max_size=6,
)


def first(path: str) -> str:
    return path.partition("/")[0]


@given(trees, st.sets(st.sampled_from(IDS)), st.sets(st.sampled_from(IDS)), st.sets(objects))
def test_what_goes_is_what_only_withdrawn_datasets_use(
    found: list[dict[str, str]], ids: set[str], accepted: set[str], wanted: set[str]
) -> None:
    gone = doomed(found, ids, accepted - ids, wanted)
    withdrawn, needed = set[str](), set(wanted)
    for tree in found:
        beside = any(first(path) in ids for path in tree)
        for path, name in tree.items():
            if first(path) in ids or (path == "manifest.json" and beside):
                withdrawn.add(name)
            elif first(path) in accepted or first(path) not in IDS:
                needed.add(name)
    assert gone == withdrawn - needed


def test_a_list_of_datasets_goes_with_the_names_in_it_and_stays_without_them() -> None:
    old = {f"{IDS[0]}/data": "a", f"{IDS[1]}/data": "b", "manifest.json": "with names"}
    new = {f"{IDS[1]}/data": "b", "manifest.json": "without"}
    assert doomed([old, new], {IDS[0]}, {IDS[1]}) == {"a", "with names"}
