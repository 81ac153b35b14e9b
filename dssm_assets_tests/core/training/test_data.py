"""Training data: what is refused, which rows are read, histories by their rule, memory-mapped tables."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.model import HistoryCut, Model, Targets
from dssm_assets.core.config.pipeline import NegativeItems
from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import DssmError, LeakError, SchemaError
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.samples.negatives import with_distribution
from dssm_assets.core.training import data as module
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training.data import TrainData, draw_cuts, find_new_items, read_hard_edges
from dssm_assets.core.training.validation import ValidationSet
from dssm_assets_tests.core.models.features import read_rows
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, ITEMS, SMALL_MODEL, SMALL_TRAINING, USERS, World, world

SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))


def _with(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    values = table.column(column).to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize(
    ("table", "column", "value", "error", "text"),
    [
        ("samples", "hour", 25, SchemaError, "table samples, column hour"),
        ("samples", "history_end", 4, LeakError, "strictly before their row's timestamp, got 1 with .*first: row 3"),
    ],
)
def test_bad_rows_are_refused(table: str, column: str, value: Any, error: type[DssmError], text: str) -> None:
    tables = world()
    with pytest.raises(error, match=text):
        replace(tables, **{table: _with(getattr(tables, table), column, 3, value)}).data(SPEC)


def test_missing_columns_of_a_table_are_named_together() -> None:
    tables = world()
    for table, names in (
        ("samples", ["hour", "pages"]),
        ("samples", ["item_row", "user_row"]),
        ("item_rows", ["item", "tags"]),
    ):
        with pytest.raises(SchemaError, match=rf"(?s)table {table}, column {names[0]}.*table {table}, column {names[1]}"):
            replace(tables, **{table: getattr(tables, table).drop_columns(names)}).data(SPEC)


@pytest.mark.parametrize("order", [FEATURES, FEATURES[::-1], FEATURES[2:] + FEATURES[:2]])
def test_features_are_read_in_the_order_of_the_specification(
    order: tuple[TowerFeature, ...],
) -> None:
    """Every sample of the world also holds the features that its rows point to: these are the reference."""
    tables, spec = world(), tower_spec(order, Model(**SMALL_MODEL))
    rows, data = np.random.default_rng(0).permutation(80)[:33], tables.data(spec)
    wide = tables.samples.take(pa.array(rows))
    users, items = spec.features_of(TowerSide.USER, TowerSide.CONTEXT), spec.features_of(TowerSide.ITEM)
    assert read_rows(data.read_user_side(rows, data.read_keys(rows)), users) == wide.select([f.name for f in users]).to_pylist()
    assert (
        read_rows(data.sample_items.read(data.read_key("item_row", rows)), items)
        == wide.select([f.name for f in items]).to_pylist()
    )


def test_sample_of_unknown_user_and_item_has_context_features_only() -> None:
    tables = world()
    for column in ("user_row", "item_row"):
        tables = replace(tables, samples=_with(tables.samples, column, 5, 0))
    data, rows = tables.data(SPEC), np.array([5])
    (user,) = read_rows(data.read_user_side(rows, data.read_keys(rows)), SPEC.features_of(TowerSide.USER, TowerSide.CONTEXT))
    request = tables.samples.select(["hour", "pages"]).slice(5, 1).to_pylist()
    assert user == {"user_kind": 0, "interests": [], **request[0]}
    assert read_rows(data.sample_items.read(data.read_key("item_row", rows)), SPEC.features_of(TowerSide.ITEM)) == [
        {"item": 0, "tags": []}
    ]


def test_towers_without_user_features_need_no_user_rows() -> None:
    tables, spec = world(), tower_spec([f for f in FEATURES if f.side is not TowerSide.USER], Model(**SMALL_MODEL))
    samples = tables.samples.set_column(
        tables.samples.column_names.index("user_row"), "user_row", pa.array(np.zeros(80, np.int32))
    )
    data = replace(tables, samples=samples, user_rows=pa.table({})).data(spec)
    rows = np.array([7, 2])
    request = tables.samples.take(pa.array(rows)).select(["hour", "pages"]).to_pylist()
    assert read_rows(data.read_user_side(rows, data.read_keys(rows)), spec.features_of(TowerSide.CONTEXT)) == request


def test_towers_without_context_features_read_user_features_only() -> None:
    tables, spec = world(), tower_spec([f for f in FEATURES if f.side is not TowerSide.CONTEXT], Model(**SMALL_MODEL))
    data, rows = tables.data(spec), np.array([7, 2])
    wide = tables.samples.take(pa.array(rows)).select(["user_kind", "interests"]).to_pylist()
    assert read_rows(data.read_user_side(rows, data.read_keys(rows)), spec.features_of(TowerSide.USER)) == wide


def test_no_samples_is_refused() -> None:
    tables = world()
    with pytest.raises(SchemaError, match="at least one sample"):
        replace(tables, samples=tables.samples.slice(0, 0)).data(SPEC)


def test_unknown_user_has_no_history_and_no_known_items() -> None:
    tables = world()
    data = replace(tables, samples=_with(tables.samples, "user_index", 5, -1)).data(SPEC)
    rows = np.array([5, 6])
    inputs = data.read_user_side(rows, data.read_keys(rows))
    assert inputs.is_empty_history is not None
    assert inputs.is_empty_history.tolist() == [1.0, 0.0]
    items, lengths = data.known_items(np.array([-1, 1]), data.user_ends())
    assert lengths.tolist() == [0, EVENTS]
    assert items.tolist() == tables.history.column("item_index").to_pylist()[EVENTS : 2 * EVENTS]


def _mapped(table: pa.Table, path: Path, max_chunksize: int) -> pa.Table:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max_chunksize)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@pytest.mark.parametrize("max_chunksize", [7, 1000])
def test_memory_mapped_tables_in_any_chunks_read_the_same(tmp_path: Path, max_chunksize: int) -> None:
    tables = world()
    names = [field.name for field in fields(World)]
    mapped = World(**{n: _mapped(getattr(tables, n), tmp_path / n, max_chunksize) for n in names})
    rows = np.random.default_rng(0).permutation(80)[:33]
    ours, theirs = mapped.data(SPEC), tables.data(SPEC)
    for a, b in (
        (ours.read_user_side(rows, ours.read_keys(rows)), theirs.read_user_side(rows, theirs.read_keys(rows))),
        tuple(one.sample_items.read(one.read_key("item_row", rows)) for one in (ours, theirs)),
        (ours.items.read(rows % ITEMS), theirs.items.read(rows % ITEMS)),
    ):
        assert a.singles.tolist() == b.singles.tolist()
        for mine, other in zip(a.bags, b.bags, strict=True):
            assert (mine.values.tolist(), mine.offsets.tolist()) == (other.values.tolist(), other.offsets.tolist())
            assert mine.weights.tolist() == other.weights.tolist()


TABLES = world()


def test_user_ends_before_a_day() -> None:
    data = TABLES.data(SPEC)
    times, starts = TABLES.history.column("event_time_ms").to_numpy(), np.arange(USERS) * EVENTS
    for day, first_ms in ((0, 0), (1, times[4])):
        expected = [start + int((times[start : start + EVENTS] < first_ms).sum()) for start in starts.tolist()]
        assert data.user_ends(day).tolist() == expected
    assert data.user_ends().tolist() == data.user_ends(data.num_days).tolist() == (starts + EVENTS).tolist()


def table(pairs: list[tuple[int, int]]) -> pa.Table:
    columns = {"user_index": [u for u, _ in pairs], "item_index": [i for _, i in pairs], "day": list(range(len(pairs)))}
    return pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()})


def test_hard_edges_by_hand_in_any_chunks() -> None:
    whole = table([(1, 0), (1, 4), (3, 2)])
    cut = pa.concat_tables([whole.slice(0, 2), whole.slice(2)])
    for chunked in (whole, cut):
        edges = read_hard_edges(chunked, 5)
        assert edges.offsets.tolist() == [0, 0, 2, 2, 3, 3]
        assert (edges.items.tolist(), edges.days.tolist()) == ([0, 4, 2], [0, 1, 2])
    none = read_hard_edges(whole.slice(0, 0), 5).draw(np.array([1], np.int32), 3, np.random.default_rng(1))
    assert len(none.items) == 0


DISTRIBUTION = NegativeItems(alpha=0.5)


def test_item_weights_before_a_day_follow_from_the_counts_before_it() -> None:
    tables = _with_distribution(world())
    data = _opened(tables)
    days, items = (tables.samples[name].to_pylist() for name in ("day", "item_index"))
    early = [item for day, item in zip(days, items, strict=True) if day < 1]
    assert data.item_weights(1) == pytest.approx([(early.count(item) + 1) ** 0.5 for item in range(ITEMS)])
    assert data.item_weights(data.num_days) == pytest.approx([(items.count(item) + 1) ** 0.5 for item in range(ITEMS)])
    assert data.item_weights(data.num_days).tolist() == tables.items["weight"].to_pylist()


def test_item_weights_without_a_distribution_are_the_same_for_every_day() -> None:
    tables = _with_distribution(world())
    bare = _opened(replace(tables, items=tables.items.replace_schema_metadata(None)))
    assert bare.item_weights(1).tolist() == bare.item_weights(bare.num_days).tolist() == tables.items["weight"].to_pylist()


def _with_distribution(tables: World) -> World:
    """Returns the world with items weighed by this distribution of its samples."""
    interactions = tables.samples["item_index"].to_numpy()
    weights = (np.bincount(interactions, minlength=ITEMS) + 1.0) ** 0.5
    items = tables.items.set_column(0, "weight", pa.array(weights))
    return replace(tables, items=items.cast(with_distribution(items.schema, DISTRIBUTION)))


def _opened(tables: World) -> TrainData:
    return tables.data(tower_spec(FEATURES, Model(**SMALL_MODEL)))


@pytest.mark.parametrize("end_day", [1, None])
def test_corrections_of_sampled_columns_are_of_the_days_that_are_trained_on(end_day: int | None) -> None:
    tables = _with_distribution(world())
    data, model = _opened(tables), Model(**SMALL_MODEL, norm="batch")  # equal columns stay apart
    last = data.num_days if end_day is None else end_day
    assert data.num_days == 2
    rows = data.rows_of_days(0, last)
    days, items = (tables.samples[name].to_pylist() for name in ("day", "item_index"))
    counts = [sum(item == one and day < last for day, item in zip(days, items, strict=True)) for one in range(ITEMS)]
    weights = [(count + 1) ** 0.5 for count in counts]
    for batch in epoch_batches(data, rows, model=model, training=Training(**SMALL_TRAINING), seed=1, epoch=0):
        sampled = batch.items.singles[-8:, 0] - 2  # the world's items have the indices from 2 on
        expected = [np.log(8 * weights[item] / sum(weights)) for item in sampled.tolist()]
        assert batch.terms.column_correction.numpy()[-8:] == pytest.approx(expected, abs=1e-6)


LONG = {**SMALL_MODEL, "history_length": 100, "context_dropout": 0.0}


def batch_of(tables: World, rows: Any = None, epoch: int = 0, **changes: Any) -> tuple[np.ndarray[Any, Any], Batch]:
    model = Model(**{**LONG, **changes})
    data = tables.data(tower_spec(FEATURES, model))
    chosen = np.arange(data.num_samples) if rows is None else rows
    training = Training(**{**SMALL_TRAINING, "batch_size": 1000})
    (batch,) = epoch_batches(data, chosen, model=model, training=training, seed=3, epoch=epoch)
    return chosen[np.random.default_rng([3, epoch, 0]).permutation(len(chosen))], batch


def histories(batch: Batch) -> list[list[int]]:
    """Returns the item indices of the history that each row's tower reads: embedding index - 2."""
    bag = batch.user.bags[-1]
    return [(part - 2).tolist() for part in np.split(bag.values, bag.offsets[1:-1])]


def columns(tables: World) -> tuple[np.ndarray[Any, Any], ...]:
    return tuple(tables.samples.column(name).to_numpy() for name in ("item_index", "user_index", "event_time_ms"))


@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_history_is_all_events_except_those_of_the_own_item(seed: int) -> None:
    tables = world(seed)
    item, user, _ = columns(tables)
    order, batch = batch_of(tables, history="leave_one_out")
    repeats = 0
    for row, history in zip(order, histories(batch), strict=True):
        everything = item[user == user[row]].tolist()
        assert history == [other for other in everything if other != item[row]]
        repeats += everything.count(item[row]) > 1
    assert repeats > 10  # every event of the own item is left out, not the sample's alone
    assert batch.user.is_empty_history is not None
    assert batch.user.is_empty_history.tolist() == [float(not history) for history in histories(batch)]


@pytest.mark.parametrize("history", ["event", "day"])
def test_own_item_in_history_is_from_an_earlier_event(history: str) -> None:
    tables = world()
    item, user, time = columns(tables)
    order, batch = batch_of(tables, history=history)
    seen_again = 0
    for row, seen in zip(order, histories(batch), strict=True):
        assert seen == item[(user == user[row]) & (time < time[row])].tolist()
        seen_again += item[row] in seen
    assert seen_again > 0


def test_leave_one_out_history_of_early_days_knows_nothing_of_later_days() -> None:
    tables = world()
    item, user, _ = columns(tables)
    day = tables.samples.column("day").to_numpy()
    order, batch = batch_of(tables, np.flatnonzero(day == 0), history="leave_one_out")
    for row, history in zip(order, histories(batch), strict=True):
        assert history == [other for other in item[(user == user[row]) & (day == 0)].tolist() if other != item[row]]


def test_leave_one_out_history_of_a_single_item_is_empty() -> None:
    tables = world()
    history = tables.history.set_column(0, "item_index", pa.array([3] * 80, pa.int32()))
    samples = tables.samples.set_column(0, "item_index", pa.array([3] * 80, pa.int32()))
    _, batch = batch_of(replace(tables, history=history, samples=samples), history="leave_one_out")
    assert histories(batch) == [[]] * 80
    assert batch.user.is_empty_history is not None
    assert batch.user.is_empty_history.tolist() == [1.0] * 80


@pytest.mark.parametrize("history", ["event", "leave_one_out"])
def test_history_cut_keeps_the_oldest_part(history: str) -> None:
    tables = world()
    whole = histories(batch_of(tables, history=history)[1])
    for frac in (0.0, 0.4, 1.0):
        cut = histories(batch_of(tables, history=history, history_cut={"sample_frac": frac, "min_length_frac": 0.25})[1])
        assert all(kept == full[: len(kept)] for kept, full in zip(cut, whole, strict=True))
        assert all(len(kept) >= np.ceil(0.25 * len(full)) for kept, full in zip(cut, whole, strict=True))
        shorter = np.mean([len(kept) < len(full) for kept, full in zip(cut, whole, strict=True) if len(full) > 3])
        assert (shorter == 0) if frac == 0 else shorter > frac / 3
        assert frac == 1.0 or shorter < 0.6


def test_history_cut_differs_by_epoch() -> None:
    changes: dict[str, Any] = {"history_cut": {"sample_frac": 1.0, "min_length_frac": 0.0}}
    lengths = []
    for epoch in (0, 0, 1):
        order, batch = batch_of(world(), epoch=epoch, **changes)
        lengths.append([len(history) for _, history in sorted(zip(order.tolist(), histories(batch), strict=True))])
    assert lengths[0] == lengths[1] != lengths[2]


def test_cuts_by_distribution() -> None:
    cuts = {frac: HistoryCut(sample_frac=frac, min_length_frac=0.75) for frac in (0.0, 0.5, 1.0)}
    drawn = {frac: draw_cuts(20_000, cut, np.random.default_rng(1)) for frac, cut in cuts.items()}
    assert (drawn[0.0] == 1).all()
    assert (drawn[0.5] < 1).mean() == pytest.approx(0.5, abs=0.02)
    # Of 8 events between 6 and 8 are left: rounded up 7 or 8, each half of the time.
    assert np.bincount(np.ceil(8 * drawn[1.0]).astype(int))[7:] / 20_000 == pytest.approx([0.5, 0.5], abs=0.02)


def test_rows_of_days_leaves_out_short_histories() -> None:
    data: TrainData = world().data(tower_spec(FEATURES, Model(**SMALL_MODEL)))
    # The k-th sample of a user has k earlier events; there are four a day.
    for least, kept in ((0, 8), (1, 7), (5, 3), (8, 0)):
        rows = data.rows_of_days(0, 2, min_history=least)
        assert rows.tolist() == [u * EVENTS + k for u in range(10) for k in range(8 - kept, 8)]
    assert data.rows_of_days(1, 2, min_history=5).tolist() == [u * EVENTS + k for u in range(10) for k in (5, 6, 7)]
    assert data.rows_of_days(0, 1).tolist() == [u * EVENTS + k for u in range(10) for k in range(4)]
    assert (data.num_days, len(data.rows_of_days(2, 9))) == (2, 0)


def test_new_items_by_hand() -> None:
    events = np.array([7, 8, 7, 9], np.int32)
    starts, items = np.zeros(6, np.int64), np.array([7, 8, 9, 7, 8, 9])
    found = find_new_items(starts, np.array([2, 2, 2, 1, 1, 1]), items, lambda at: events[at])
    assert found.tolist() == [False, False, True, False, True, True]


@given(
    users=st.lists(st.lists(st.integers(-1, 4), max_size=6), min_size=1, max_size=5),
    samples=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6)), max_size=12),
    most=st.integers(1, 9),
)
def test_new_items_are_those_of_a_loop(users: list[list[int]], samples: list[Any], most: int) -> None:
    events = np.array([item for one in users for item in one], np.int32)
    bounds = np.cumsum([0, *map(len, users)])
    rows = [(user % len(users), item, min(seen, len(users[user % len(users)]))) for user, item, seen in samples]
    starts = np.array([bounds[user] for user, _, _ in rows], np.int64)
    ends = starts + np.array([seen for _, _, seen in rows], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_EVENTS", most)
        found = find_new_items(starts, ends, np.array([item for _, item, _ in rows], np.int64), lambda at: events[at])
    assert found.tolist() == [item not in users[user][:seen] for user, item, seen in rows]


def test_targets_new_are_the_first_of_each_user_and_item() -> None:
    tables = world()
    data = tables.data(SPEC)
    items = tables.samples.column("item_index").to_pylist()
    first = [k for k, item in enumerate(items) if item not in items[k - k % EVENTS : k]]
    assert data.rows_of_days(0, 2, targets=Targets.NEW).tolist() == first
    assert 0 < len(first) < USERS * EVENTS


def test_validation_of_new_targets_leaves_out_what_was_seen() -> None:
    tables = world()
    data = tables.data(SPEC)
    items, days = (tables.samples.column(name).to_numpy() for name in ("item_index", "day"))
    found = ValidationSet(data, 1, Targets.NEW)
    for place, user in enumerate(found.user_index.tolist()):
        truth, excluded = (set(sets.select_users(np.array([place])).items.tolist()) for sets in (found.truth, found.excluded))
        own = np.arange(user * EVENTS, (user + 1) * EVENTS)
        seen, of_day = (set(items[own][days[own] == day].tolist()) for day in (0, 1))
        assert (truth, excluded) == (of_day - seen, seen)
        assert truth
