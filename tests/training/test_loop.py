"""What all trainers share: learning rate, seeds, curves."""

from itertools import pairwise

import pytest

from world4rl.training.loop import cosine_factor, curve_csv, stage_seeds


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine():
    factors = [cosine_factor(step, 100, 10) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert factors[10] == pytest.approx(1)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert cosine_factor(0, 10, 0) == 1


def test_seeds_differ_between_seeds_stages_and_uses_and_never_change():
    seeds = [*stage_seeds(0, "refine/a", 3), *stage_seeds(0, "refine/b", 3), *stage_seeds(1, "refine/a", 3)]
    assert len(set(seeds)) == 9
    assert stage_seeds(0, "refine/a", 3) == seeds[:3]
    assert stage_seeds(0, "refine/a", 2) == seeds[:2]


def test_a_curve_as_csv():
    text = curve_csv(("step", "loss", "held_out"), [(1, 0.5, None), (20, 1 / 3, 2.0)])
    assert text == "step,loss,held_out\n1,0.5,\n20,0.333333,2\n"
