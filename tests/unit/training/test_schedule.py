from __future__ import annotations

from collections import Counter

from training.schedule import plan_batches

LENGTHS = [10, 80, 12, 70, 11, 75, 40, 42, 41, 13]


def test_each_example_is_seen_as_often_as_its_epochs_say() -> None:
    epochs = [3, 1, 3, 1, 2, 2, 3, 3, 1, 3]
    plan = plan_batches(LENGTHS, epochs, batch_size=2, steps=None, seed=0)
    seen = Counter(index for batch in plan for index in batch)
    assert [seen[index] for index in range(len(LENGTHS))] == epochs
    assert all(1 <= len(batch) <= 2 for batch in plan)
    assert all(len(set(batch)) == len(batch) for batch in plan)


def test_equal_seeds_give_equal_plans_and_others_do_not() -> None:
    plans = [plan_batches(LENGTHS, [2] * 10, batch_size=3, steps=None, seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_steps_cut_the_plan_off_or_repeat_it() -> None:
    short = plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=3, seed=0)
    long = plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=12, seed=0)
    assert len(short) == 3
    assert len(long) == 12
    assert long[:3] == short
    assert long[:5] != long[5:10]


def test_few_examples_are_gone_over_again_until_there_are_enough_steps() -> None:
    plain = plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=None, seed=0)
    more = plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=None, seed=0, min_steps=8)
    assert len(plain) == 5
    assert len(more) == 8
    assert more[:5] == plain
    assert plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=None, seed=0, min_steps=4) == plain
    assert len(plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=3, seed=0, min_steps=8)) == 3


def test_few_examples_are_gone_over_four_times_at_most() -> None:
    plan = plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=None, seed=0, min_steps=1000)
    assert sorted(index for step in plan for index in step) == sorted([*range(10)] * 4)
    assert len(plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=1000, seed=0)) == 1000  # who asks for so many


def test_batches_hold_examples_of_similar_length() -> None:
    plan = plan_batches(LENGTHS, [1] * 10, batch_size=2, steps=None, seed=0)
    padded = sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in plan)
    assert padded <= 1.15 * sum(LENGTHS)


def test_without_examples_there_is_no_plan() -> None:
    assert plan_batches([], [], batch_size=2, steps=5, seed=0) == []
