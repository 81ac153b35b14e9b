"""Splits against hand-made rows, and against the rules written down with pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets_tests.benchmarks.quality_splits import (
    SECONDS_PER_DAY,
    TIE_SEED,
    Log,
    Split,
    cut,
    distinct_log,
    read_split,
)

DAY = SECONDS_PER_DAY
ROWS = [
    # user, item, time: not in time order
    (1, 14, 5 * DAY),
    (1, 10, 1 * DAY),
    (1, 11, 2 * DAY),
    (1, 12, 3 * DAY),
    (1, 13, 4 * DAY),
    (2, 14, 2 * DAY),
    (2, 20, 6 * DAY),
    (3, 11, 6 * DAY + 1),
    (1, 10, 7 * DAY),  # again: the first is kept
]


def _log(rows: list[tuple[int, int, int]]) -> Log:
    return distinct_log(*(np.array(column, np.int64) for column in zip(*rows, strict=True)))


def _train(split: Split) -> list[tuple[int, int]]:
    return list(zip(split.user_ids[split.user].tolist(), split.item_ids[split.item].tolist(), strict=True))


def _truth(split: Split) -> list[tuple[int, int]]:
    users = split.user_ids[split.eval_users[split.truth_row]]
    return list(zip(users.tolist(), split.item_ids[split.truth_item].tolist(), strict=True))


def test_repeated_interactions_count_once_and_the_first_stays() -> None:
    log = _log(ROWS)
    assert log.user_id.tolist() == [1, 1, 2, 1, 1, 1, 2, 3]
    assert log.item_id.tolist() == [10, 11, 14, 12, 13, 14, 20, 11]
    assert log.time_s[0] == DAY


def test_leave_one_out_follows_the_page_where_it_is_known(tmp_path: Path) -> None:
    columns = {"user_id": [1, 1, 1, 2], "item_id": [5, 6, 7, 5], "event_time": [0, 0, 0, 0], "seq_pos": [2, 0, 1, 0]}
    pq.write_table(pa.table(columns), tmp_path / "behavior.parquet")
    assert _truth(read_split(tmp_path, "loo")) == [(1, 5)]


def test_last_percent_holds_out_at_least_one_of_two_or_more() -> None:
    # User 1 has 5: 20 % is 1. User 2 has 2: 0.4 rounds down to 0, so 1; item 20 is not in the training part. User 3 has 1: stays.
    split = cut(_log(ROWS), "lastpct-20")
    assert _train(split) == [(1, 10), (1, 11), (2, 14), (1, 12), (1, 13), (3, 11)]
    assert _truth(split) == [(1, 14)]
    assert split.dropped_pairs == 1
    assert split.truth_counts().tolist() == [1]
    assert split.seen().indices.tolist() == [0, 1, 2, 3]  # items 10, 11, 12, 13 of user 1


def test_calendar_split_boundary_is_exclusive() -> None:
    # The last event is at 6 d + 1 s: later than 4 d + 1 s are 5 d, 6 d and itself. User 3 is not known before.
    split = cut(_log(ROWS), "temporal-2")
    assert _train(split) == [(1, 10), (1, 11), (2, 14), (1, 12), (1, 13)]
    assert _truth(split) == [(1, 14)]
    assert split.dropped_pairs == 2
    at_the_edge = cut(_log([*ROWS, (4, 12, 6 * DAY)]), "temporal-2")
    assert (4, 12) not in _train(at_the_edge)
    exactly = cut(_log([(1, 10, 0), (1, 11, DAY), (1, 10, 3 * DAY), (1, 12, 3 * DAY)]), "temporal-2")
    assert _train(exactly) == [(1, 10), (1, 11)]


def test_inner_split_applies_the_rule_to_the_training_part() -> None:
    # Left are 10, 11, 12, 13 of user 1 and one each of users 2 and 3: 13 is held out, which no other user has.
    split = cut(_log(ROWS), "lastpct-20", inner=True)
    assert _train(split) == [(1, 10), (1, 11), (2, 14), (1, 12), (3, 11)]
    assert _truth(split) == []
    assert split.dropped_pairs == 1


@pytest.mark.parametrize("rule", ["lastpct", "loo-1", "temporal-x", "random-20"])
def test_unknown_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="expected lastpct-P, loo or temporal-D"):
        cut(_log(ROWS), rule)


def _by_definition(frame: pd.DataFrame, rule: str) -> tuple[list[tuple[int, int]], set[tuple[int, int]]]:
    """Returns the training pairs in order and the truth pairs, by the rules as sentences in pandas."""
    frame = frame.assign(tie=np.random.default_rng(TIE_SEED).random(len(frame)))
    frame = frame.sort_values(["time", "tie"], kind="stable").drop_duplicates(["user", "item"]).reset_index(drop=True)
    size, place = frame.groupby("user")["item"].transform("size"), frame.groupby("user").cumcount()
    held = {
        "lastpct-20": (place >= size - np.maximum(1, np.floor(size * 0.2))) & (size >= 2),
        "loo": (place == size - 1) & (size >= 3),
        "temporal-1": frame.time > frame.time.max() - DAY,
    }[rule]
    train, test = frame[~held], frame[held]
    test = test[test.user.isin(train.user) & test.item.isin(train.item)]
    return _pairs(train), set(_pairs(test))


def _pairs(frame: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(frame.user.tolist(), frame.item.tolist(), strict=True))


@pytest.mark.parametrize("rule", ["lastpct-20", "loo", "temporal-1"])
def test_split_of_a_random_log_with_ties_equals_its_definition(rule: str) -> None:
    rng = np.random.default_rng(5)
    columns = {"user": rng.integers(0, 20, 400), "item": rng.integers(0, 30, 400), "time": rng.integers(0, 9, 400) * DAY // 3}
    split = cut(distinct_log(*columns.values()), rule)
    train, truth = _by_definition(pd.DataFrame(columns), rule)
    assert _train(split) == train
    assert set(_truth(split)) == truth
    assert len(truth) > 5
