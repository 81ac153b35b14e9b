"""What a bundle stores of users' inputs: their features and the latest events that the tower reads."""

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.serving.bundle_contents import history_reach, list_user_inputs
from dssm_assets_tests.serving.bundles import tower_spec

HISTORY = HistoryCsr(
    users=IdIndex(pa.array(["u", "v"])),
    starts=np.array([0, 3]),
    ends=np.array([3, 4]),
    item_index=np.array([5, 6, 7, -1], np.int32),
    event_time_ms=np.array([10, 20, 30, 40]),
    features={"history__item": np.array([2, 3, 4, 1], np.int32), "history__brand": np.array([0, 2, 0, 2], np.int32)},
)


def spec(**changes):
    return TowerSpec.model_validate(tower_spec() | changes)


def test_a_row_has_the_features_and_the_latest_events():
    features = pa.table({"city": pa.array([2, 3, 0], pa.int32()), "tags": pa.array([[], [3], []], pa.list_(pa.int32()))})
    rows = list_user_inputs(features, HISTORY, np.array([0, 3, 0]), np.array([3, 4, 0]), spec(history_length=2))
    assert rows.to_pylist() == [
        {
            "city": city,
            "tags": tags,
            "history/item_rows": items,
            "history/event_times_ms": times,
            "history/history__item": indices,
            "history/history__brand": brands,
        }
        for city, tags, items, times, indices, brands in [
            (2, [], [6, 7], [20, 30], [3, 4], [2, 0]),
            (3, [3], [-1], [40], [1], [2]),
            (0, [], [], [], [], []),
        ]
    ]


def test_towers_without_user_features_or_history():
    rows = list_user_inputs(pa.table({}), HISTORY, np.array([0]), np.array([3]), spec(history_length=0))
    assert rows.to_pylist() == [{"history/item_rows": [], "history/event_times_ms": []}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"history_length": 7}, 7),
        ({"history_length": 0}, 0),
        ({"poolings": [{"kind": "mean", "length": 9}, {"kind": "sequence", "length": 12}]}, 12),
        ({"poolings": [{"kind": "mean", "length": 9}, {"kind": "sequence", "length": 3}]}, 9),
    ],
)
def test_reach_is_that_of_the_pooling_that_reads_most(changes, expected):
    assert history_reach(spec(**changes)) == expected
