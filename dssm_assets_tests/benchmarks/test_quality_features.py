"""Features and tables of a split against values by hand; no sample sees its own item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.errors import LeakError
from dssm_assets_tests.benchmarks.quality_features import (
    item_columns,
    read_entities,
    recent_popularity,
    user_columns,
)
from dssm_assets_tests.benchmarks.quality_ours import SEQUENCE, code_vectors, concatenate_vectors, fit_vectors, split_tables
from dssm_assets_tests.benchmarks.quality_scores import ByVectors
from dssm_assets_tests.benchmarks.quality_settings import chosen
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Split, cut, distinct_log, read_split
from dssm_assets_tests.benchmarks.quality_tiny import USERS, write_tiny


def _split(rows: Sequence[tuple[int, int, int]], rule: str) -> Split:
    return cut(distinct_log(*(np.array(column, np.int64) for column in zip(*rows, strict=True))), rule)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    write_tiny(folder)
    return folder


def test_features_by_hand(data: Path) -> None:
    split, entities = read_split(data, "lastpct-20"), read_entities(data)
    users = {column.name: column for column in user_columns(split, entities, with_id=True)}
    assert users["gender"].values[:2].tolist() == [2, 1]  # F before M, 0 is missing
    assert users["age"].values[:2].tolist() == [1, 2]  # missing counts as below 18; 18 opens the next
    assert users["zip3"].size == 2
    assert users["user"].values.tolist() == list(range(1, USERS + 1))
    items = {column.name: column for column in item_columns(split, entities)}
    year, genres = items["year"], items["genres"]
    assert year.values[[0, 7]].tolist() == [0, 0]  # no row, no year
    assert year.values[1] == 2  # 1931 is past the first edge
    assert np.diff(np.asarray(genres.offsets))[[0, 1, 30]].tolist() == [1, 2, 1]
    assert all(column.values.max() < column.size and column.values.min() >= 0 for column in items.values())
    assert [name for name in items if name.startswith("popularity")] == [
        "popularity_ever",
        "popularity_7d",
        "popularity_30d",
        "popularity_90d",
    ]


def test_recent_popularity_by_hand() -> None:
    day = SECONDS_PER_DAY
    split = _split([(0, 0, 0), (0, 1, 7 * day), (1, 1, 0), (1, 0, 7 * day), (1, 2, 8 * day)], "loo")
    assert recent_popularity(split, 7.0) == pytest.approx([1 + np.exp(-1), 1 + np.exp(-1)])


def test_no_history_has_the_samples_own_item(data: Path) -> None:
    split, entities = read_split(data, "lastpct-20"), read_entities(data)
    tables = split_tables(split, entities, chosen("ml-100k", "lastpct-20"))
    samples, history = tables.samples.to_pydict(), tables.history.to_pydict()
    starts = tables.users["history_start"].to_pylist()
    for user, item, end in zip(samples["user_index"], samples["item_index"], samples["history_end"], strict=True):
        assert item not in history["item_index"][starts[user] : end]
    # The sequence reads the rows of the item's own shared table.
    assert history[SEQUENCE] == [item + 1 for item in history["item_index"]]
    tables.train_data()
    late = tables.samples.set_column(2, "history_end", pa.array([end + 1 for end in samples["history_end"]]))
    with pytest.raises(LeakError):
        replace(tables, samples=late).train_data()


def test_products_of_several_fits_are_their_mean(data: Path) -> None:
    split, entities = read_split(data, "lastpct-20"), read_entities(data)
    base = chosen("ml-100k", "lastpct-20").with_training(epochs=1, batch_size=64)
    twice, speed = fit_vectors(split, entities, replace(base, fits=2), 1)  # seeds 2 and 3
    alone = [fit_vectors(split, entities, base, seed)[0] for seed in (2, 3)]
    mean = sum(one.users @ one.items.T for one in alone) / 2
    assert twice.users @ twice.items.T == pytest.approx(mean, abs=1e-5)
    assert not np.allclose(alone[0].users @ alone[0].items.T, mean, atol=1e-3)
    assert speed > 0


def test_added_codes_add_their_products(data: Path) -> None:
    split, entities = read_split(data, "lastpct-20"), read_entities(data)
    base = chosen("ml-100k", "lastpct-20").with_training(epochs=1, batch_size=64)
    codes = SvdInit(embedding="codes", score_std=0.1)
    alone, _ = fit_vectors(split, entities, base, 0)
    both, _ = fit_vectors(split, entities, replace(base, added_codes=codes), 0)
    added = code_vectors(split, codes)
    expected = alone.users @ alone.items.T + added.users @ added.items.T
    assert both.users @ both.items.T == pytest.approx(expected, abs=1e-5)


def test_code_vectors_by_hand() -> None:
    # One user has items 0 and 1, one has item 2. The directions of the two histories are (.71, .71, 0) and (0, 0, 1), so items 0 and 1
    # have a code of length .71. The first user's vector is the sum of both, 1.41, over root 2, and its product with either .71.
    split = _split([(0, 0, 0), (0, 1, 1), (1, 2, 0), (0, 2, 9 * SECONDS_PER_DAY), (1, 0, 9 * SECONDS_PER_DAY)], "temporal-1")
    vectors = code_vectors(split, SvdInit(embedding="codes", scale=1.0))
    products = vectors.users @ vectors.items.T
    assert products == pytest.approx(np.array([[0.5**0.5, 0.5**0.5, 0], [0, 0, 1]]), abs=1e-6)


def test_concatenated_vectors_add_their_scores() -> None:
    # (1, 2) . (3, 4) = 11 and (5) . (6) = 30.
    one, other = ByVectors(_row(1, 2), _row(3, 4)), ByVectors(_row(5), _row(6))
    both = concatenate_vectors([one, other])
    assert (both.users @ both.items.T).tolist() == [[41.0]]
    half = concatenate_vectors([one, other], 0.5)
    assert (half.users @ half.items.T).tolist() == [[10.25]]


def _row(*values: float) -> npt.NDArray[np.float32]:
    return np.array([values], np.float32)
