"""When a second run counts as the same, and what is said when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from world4rl.provenance.reproduction import Comparison, FigurePair, Made, compare

MODEL = {"models/a/config.json": "1" * 64, "models/a/model.safetensors": "2" * 64}
CHANGED = MODEL | {"models/a/model.safetensors": "3" * 64}
FIGURES = {"seconds": 12.5, "loss": 0.25, "task": "reach-v3"}

values = st.one_of(st.floats(-1e6, 1e6), st.integers(-1000, 1000), st.text(max_size=3), st.booleans())
figures = st.dictionaries(st.text(max_size=3), values, max_size=4)
files = st.dictionaries(st.text(max_size=3), st.sampled_from(["1" * 64, "2" * 64]), max_size=4)


def against(files: dict[str, str], figures: dict[str, object], tolerance: float = 0.05) -> Comparison:
    return compare(Made(MODEL, FIGURES), Made(files, figures), tolerance)


def test_the_same_bytes_are_bit_equal_however_long_it_took() -> None:
    found = against(MODEL, FIGURES | {"seconds": 99.0})
    assert (found.verdict, found.files, found.figures) == ("bit-equal", (), ())


def test_other_bytes_with_close_figures_are_metric_equal() -> None:
    found = against(CHANGED, FIGURES | {"loss": 0.29})
    assert found.verdict == "metric-equal"
    assert found.files == ("models/a/model.safetensors",)
    assert found.compared == 1


def test_figures_that_are_too_far_apart_are_named() -> None:
    found = against(CHANGED, FIGURES | {"loss": 0.31})
    assert found.verdict == "different"
    assert found.figures == (FigurePair("loss", 0.25, 0.31),)


@pytest.mark.parametrize(("again", "agrees"), [(104.9, True), (105.1, False), (95.1, True), (94.9, False)])
def test_the_tolerance_is_relative_for_large_numbers(again: float, agrees: bool) -> None:
    found = compare(Made(MODEL, {"n": 100.0}), Made(CHANGED, {"n": again}), 0.05)
    assert (found.verdict == "metric-equal") == agrees


def test_other_bytes_with_nothing_measured_are_different() -> None:
    assert compare(Made(MODEL, {"seconds": 1.0}), Made(CHANGED, {"seconds": 1.0}), 0.05).verdict == "different"


def test_a_missing_file_or_figure_is_a_difference() -> None:
    found = against({}, {})
    assert found.verdict == "different"
    assert found.files == tuple(sorted(MODEL))
    assert FigurePair("loss", 0.25, None) in found.figures


def test_a_digest_among_the_figures_goes_with_its_file() -> None:
    one, other = Made(MODEL, {"digest": "a", "n": 1}), Made(CHANGED, {"digest": "b", "n": 1})
    assert compare(one, other, 0.0).verdict == "metric-equal"
    assert compare(one, Made(MODEL, {"digest": "b", "n": 1}), 0.0).verdict == "different"


@given(files, figures, st.floats(0, 1))
def test_whatever_is_the_same_is_bit_equal(files: dict[str, str], figures: dict[str, object], tolerance: float) -> None:
    assert compare(Made(files, figures), Made(dict(files), dict(figures)), tolerance).verdict == "bit-equal"


@given(files, files, figures, figures)
def test_bit_equal_never_hides_a_file(
    one: dict[str, str], other: dict[str, str], some: dict[str, object], more: dict[str, object]
) -> None:
    found = compare(Made(one, some), Made(other, more), 0.1)
    assert (found.files == ()) == (one == other)
    if found.verdict == "bit-equal":
        assert one == other


@given(files, files, figures, figures)
def test_a_wider_tolerance_never_makes_it_worse(
    one: dict[str, str], other: dict[str, str], some: dict[str, object], more: dict[str, object]
) -> None:
    order = ("bit-equal", "metric-equal", "different")
    narrow, wide = (compare(Made(one, some), Made(other, more), tolerance).verdict for tolerance in (0.01, 0.5))
    assert order.index(wide) <= order.index(narrow)
