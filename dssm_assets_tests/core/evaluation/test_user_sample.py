"""The sample of users: who is in it, that it is the same one again, and that it is no worse than chance."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.evaluation.user_sample import sampled_users


def truth(ids: list[object], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"user_id": pa.array(ids, kind), "row": range(len(ids))})


def chosen(table: pa.Table, count: int | None, seed: int = 17) -> list[object]:
    return sampled_users(table, count, seed).column("user_id").to_pylist()


@pytest.mark.parametrize("count", [None, 3, 4])
def test_as_many_as_there_are_or_more_are_all_of_them(count):
    table = truth(["a", "b", "c"])
    assert sampled_users(table, count, 17) is table


@given(ids=st.lists(st.integers(0, 10**12), unique=True, max_size=60), count=st.integers(1, 30), seed=st.integers(0, 5))
def test_the_sample_has_the_asked_size_keeps_the_order_and_the_rows(ids, count, seed):
    table = truth(sorted(ids), pa.int64())
    found = sampled_users(table, count, seed)
    rows = found.column("row").to_pylist()
    assert found.num_rows == min(count, len(ids))
    assert rows == sorted(set(rows))
    assert found.equals(table.take(pa.array(rows, pa.int64())))


@given(ids=st.lists(st.integers(0, 10**6), unique=True, min_size=5, max_size=60), count=st.integers(1, 5))
def test_who_is_in_it_does_not_depend_on_how_many_are_and_who_else_came(ids, count):
    table = truth(sorted(ids), pa.int64())
    few, more = set(chosen(table, count)), set(chosen(table, count + 1))
    assert few <= more
    others = truth(sorted(set(ids) - few), pa.int64())
    assert few.isdisjoint(chosen(others, count))
    assert set(chosen(truth(sorted(more), pa.int64()), count)) == few


def test_the_same_id_as_a_number_and_as_text_is_chosen_alike_and_another_seed_chooses_others():
    numbers, texts = truth(list(range(100)), pa.int64()), truth([str(n) for n in range(100)])
    assert [str(user) for user in chosen(numbers, 20)] == chosen(texts, 20)
    assert chosen(numbers, 20) == chosen(numbers, 20)
    assert chosen(numbers, 20, seed=1) != chosen(numbers, 20, seed=2)


def test_over_many_seeds_every_user_is_chosen_equally_often():
    # 50 users, 10 of them chosen 2,000 times: 400 each expected, with a standard deviation of sqrt(2000 * .2 * .8) = 17.9.
    table, counts = truth(list(range(50)), pa.int64()), np.zeros(50)
    for seed in range(2000):
        counts[sampled_users(table, 10, seed).column("row").to_numpy()] += 1
    assert counts.sum() == 20_000
    assert abs(counts - 400).max() < 4.5 * 17.9
