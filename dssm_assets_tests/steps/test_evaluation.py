"""The steps of the evaluation over vectors, truth and tables written by hand; nothing is trained.

Items a, b, c, d have 6, 2, 1, 0 events in the window (so a is the head, b and c the rest, d unseen). Lists of 2:

              2024-01-08        2024-01-09
    u         c, d              a, b            town x, 11 events in the window, bought before
    v         c, d              c, d            town y, no event in the window, only ever clicked
    w         not evaluated     a, c            not in the user table, 1 event in the window, bought before
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.channels.merge import CHANNEL_WEIGHTS, default_merges, to_table
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.errors import ConfigError, PartitionMissingError, SchemaError
from dssm_assets.core.evaluation import hits
from dssm_assets.core.evaluation.evaluation_tables import GROUND_TRUTH, HIT_COUNTS
from dssm_assets.core.evaluation.rates import gains_over_best, split_cells, sum_hits
from dssm_assets.core.evaluation.truth import ground_truth
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps import evaluation, scoring
from dssm_assets.steps.evaluation import read_cells
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.core.evaluation.worlds import pairs_table
from dssm_assets_tests.undrawn import leave_out_charts

FIRST, DAY, PREVIOUS_DAY = "2024-01-08", "2024-01-09", "2024-01-08"
EVALUATION = {
    "k": [1, 2],
    "bootstrap_samples": 100,
    "segments": [
        {"name": "town", "by": "city"},
        {"name": "items", "by": "item_popularity"},
        {"name": "activity", "by": "activity", "edges": [10]},
        {"name": "tenure", "by": "tenure"},
    ],
}
ITEMS = {"a": [4.0, 0.0], "b": [3.0, 0.0], "c": [0.0, 4.0], "d": [0.0, 3.0]}
ACROSS, UP, BOTH = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]


def put(workspace, table, ds, data):
    return workspace.tables.write(TableSpec(table, "any", (), ()), ds, data)


def vectors(key, rows):
    flat = pa.array(np.array(list(rows.values()), np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, 2)
    return pa.table({f"{key}_id": list(rows), f"{key}_tower_emb": column})


def put_day(workspace, ds, users, truth_pairs):
    """Writes what the evaluation of a day reads, except for the earlier days."""
    put(workspace, "item_vectors", ds, vectors("item", ITEMS))
    put(workspace, "user_vectors", ds, vectors("user", users))
    put(workspace, "negative_items", ds, pa.table({"item_id": list(ITEMS), "count": [6, 2, 1, 0]}))
    truth = ground_truth(pairs_table(truth_pairs), [pairs_table([("u", "a"), ("w", "b"), ("w", "c")])])
    workspace.tables.write(GROUND_TRUTH, ds, truth)
    put_weights(workspace, ds, default_merges(list(ChannelName)))


def put_weights(workspace, ds, merges):
    workspace.tables.write(CHANNEL_WEIGHTS, ds, to_table(merges))


def configured(folder, changes=None, **sections):
    settings = {"evaluation": {**EVALUATION, **(changes or {})}, "window": {"days": 3}, **sections}
    return open_workspace(worlds.write_config(folder, {**settings, "model": {"similarity": "INNER_PRODUCT"}}))


@pytest.fixture
def workspace(tmp_path):
    workspace = configured(tmp_path)
    history = {"user_id": ["u", "w"], "item_ids": [["a"] * 11, ["b"]], "event_times_ms": [list(range(11)), [0]]}
    put(workspace, "user_history_fg", "2024-01-07", pa.table(history))
    put(workspace, "user_table", PREVIOUS_DAY, pa.table({"user_id": ["v", "u"], "city": ["y", "x"]}))
    for ds in (PREVIOUS_DAY, "2024-01-07"):
        kinds = {
            "item_id": ["a", "b", "c", "d", "other"],
            "kind": ["x", "y", "y", "x", "y"],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
        put(workspace, "item_table", ds, pa.table(kinds))
    put(workspace, "user_table", "2024-01-07", pa.table({"user_id": ["v", "u"], "city": ["other", "other"]}))
    activity = {"user_id": ["u", "u", "v", "w"], "event": ["click", "buy", "click", "buy"]}
    put(workspace, "user_activity", PREVIOUS_DAY, pa.table(activity))
    put(workspace, "user_activity", "2024-01-07", pa.table(activity))
    put_day(workspace, FIRST, {"u": UP, "v": UP}, [("u", "c"), ("v", "a")])
    put_day(workspace, DAY, {"u": ACROSS, "v": UP, "w": BOTH}, [("u", "a"), ("u", "c"), ("v", "d"), ("v", "zz"), ("w", "b")])
    return workspace


@pytest.fixture
def undrawn(monkeypatch):
    leave_out_charts(monkeypatch)


def run(step, workspace, ds=DAY):
    (result,) = step(workspace, [ds])
    return result


def evaluate(workspace, ds=DAY):
    """Returns the results of hit_rate_detail and total_hit_rate of a day."""
    run(scoring.hit_counts, workspace, ds)
    return run(evaluation.hit_rate_detail, workspace, ds), run(evaluation.total_hit_rate, workspace, ds)


def test_scoring_says_what_it_does_and_how_far_it_is(workspace, monkeypatch):
    # Three users in blocks of one; the clock moves by 6 seconds a reading.
    lines = []
    monkeypatch.setattr(hits, "BLOCK_USERS", 1)
    run(scoring.hit_counts, replace(workspace, log=lines.append, now=itertools.count(0, 6).__next__))
    assert {"reading the interactions of all users, days: 1", "fitting item co-occurrence", "fitting EASE"} <= set(lines)
    assert lines[-3].startswith("scoring 3 of 3 users x 4 items")
    assert lines[-2:] == ["1/3 users, 0.17 users/s, ETA 12 s", "2/3 users, 0.17 users/s, ETA 6 s"]


def test_cold_items_are_ranked_among_themselves_and_by_category(undrawn, workspace):
    # c and d have no event; u takes c, v takes d and zz, which is in no table. The vectors rank c, d for both (u finds both equal).
    # a, of kind x as d, has 11 events in the window, b of kind y has one: kind x comes first.
    _, result = evaluate(workspace)
    counts = workspace.tables.read(workspace.need("hit_counts", DAY)).to_pylist()
    rows = [row for row in counts if (row["scope"], row["population"]) == ("cold", "all")]
    cold = {(row["scorer"], row["user_id"]): (row["truth_count"], row["hits_1"], row["hits_2"]) for row in rows}
    assert cold == {
        ("model", "u"): (1, 1, 1),
        ("model", "v"): (2, 0, 1),
        ("category_popularity", "u"): (1, 0, 1),
        ("category_popularity", "v"): (2, 1, 1),
    }
    assert result.facts["rates@2"]["cold"] == {"model": pytest.approx(2 / 3), "category_popularity": pytest.approx(2 / 3)}
    assert "Candidates: the 2 cold items of the corpus. Popularity by category: by column kind." in result.report_markdown
    assert "| **vectors alone, cold items among themselves** | **0.667 [" in result.report_markdown


def test_the_report_shows_people_unless_told_otherwise(undrawn, workspace):
    def report(**changes):
        return run(evaluation.total_hit_rate, worlds.changed(workspace, "evaluation", **changes)).report_markdown

    # By hand: the merged lists of two find a for u, EASE finds a for u and b for w. The vectors rank d second for v, and zz is in no table.
    evaluate(workspace)
    section = report().partition("## Five people")[2].partition("## ")[0].splitlines()
    shown = [line.partition(",")[0].strip("*") for line in section if line.startswith("**")]
    assert shown == ["Typical 1", "Best gain", "Worst gain"]
    assert "**Typical 1, v**: 0 of 2 found by the merged list; EASE would find 0." in section
    assert "**Best gain, u**: 1 of 2 found by the merged list; EASE would find 1." in section
    assert "**Worst gain, w**: 0 of 1 found by the merged list; EASE would find 1." in section
    assert "  - x: rank 2 by two-tower model, taken by nobody in the window" in section  # the kind of d
    assert "  - zz: not among the first 2 by two-tower model, taken by nobody in the window" in section
    assert "- Had lately: x" in section and "  - x: rank 1 by two-tower model, had in the window" in section
    priced = worlds.changed(workspace, "explore", item_columns=["kind", "price"])
    assert "  - y / 2.0: not among" in run(evaluation.total_hit_rate, priced).report_markdown
    assert "Five people" not in report(show_people=False)


SEGMENTS = [  # segment, value, users, hits, items to find; by hand: u finds a of a, c; v finds d of d, zz; w misses b
    ("town", "x", 1, 1, 2),
    ("town", "y", 1, 1, 2),
    ("town", "(missing)", 1, 0, 1),
    ("items", "head: top 1% of items", 1, 1, 1),
    ("items", "rest", 2, 0, 2),
    ("items", "unseen in the window", 1, 1, 2),
    ("activity", "0", 1, 1, 2),
    ("activity", "1-9", 1, 0, 1),
    ("activity", "10+", 1, 1, 2),
    ("tenure", "first-time", 1, 1, 2),
    ("tenure", "returning", 2, 1, 3),
]


def test_segments_are_those_of_the_previous_day(undrawn, workspace):
    result = run(evaluation.hit_rate_detail, workspace)
    rows = workspace.tables.read(result.manifest).to_pylist()
    assert [(row["user_id"], row["topk_ids"]) for row in rows] == [("u", ["a", "b"]), ("v", ["c", "d"]), ("w", ["a", "c"])]
    cuts = [(row["segment_town"], row["segment_activity"], row["segment_tenure"]) for row in rows]
    assert cuts == [("x", "10+", "returning"), ("y", "0", "first-time"), ("(missing)", "1-9", "returning")]
    assert [(row["hits_head"], row["truth_count_rest"], row["truth_count_unseen"]) for row in rows] == [
        (1, 1, 0),
        (0, 0, 2),
        (0, 1, 0),
    ]
    read = {f"{name}/{PREVIOUS_DAY}" for name in ("user_table", "user_activity")} | {"user_history_fg/2024-01-07"}
    assert read | {f"{name}/{DAY}" for name in ("negative_items", "item_vectors", "user_vectors", "ground_truth")} == set(
        result.manifest.inputs
    )


def test_detail_and_total_report_every_segment_as_table_and_chart(workspace):
    detail, total = evaluate(workspace)
    for result in (detail, total):
        rows = [row for row in result.facts["segments"] if row["scorer"] == "model"]
        assert [tuple(row[name] for name in ("segment", "value", "users", "hits", "truth_count")) for row in rows] == SEGMENTS
        assert result.images["hit_rate_by_segment"].startswith(b"\x89PNG")
    assert "| (missing) | 1 | 1 | 0.000 [0.000, 0.000] |" in detail.report_markdown
    assert {row["scorer"] for row in detail.facts["segments"]} == {"model"}


def merged_hits(workspace, k):
    """Returns user -> hits of the merged list over all users and items."""
    counts = workspace.tables.read(workspace.need("hit_counts", DAY)).to_pylist()
    cell = ("merged", "all", "all")
    return {row["user_id"]: row[f"hits_{k}"] for row in counts if (row["scorer"], row["scope"], row["population"]) == cell}


def test_segments_of_the_merged_list_add_up_to_its_hits(undrawn, workspace):
    """The merged list is what is served. u takes a and c, v takes d and zz, which is in no list, w takes b."""
    _, total = evaluate(workspace)
    of_user = merged_hits(workspace, 2)
    rows = {(row["segment"], row["value"]): row for row in total.facts["segments"] if row["scorer"] == "merged"}
    assert [(*key, row["users"], row["truth_count"]) for key, row in rows.items()] == [(*row[:3], row[4]) for row in SEGMENTS]
    assert {value: rows["town", value]["hits"] for value in ("x", "y", "(missing)")} == dict(
        zip(["x", "y", "(missing)"], of_user.values(), strict=True)
    )
    for segment in ("town", "items", "activity", "tenure"):
        assert sum(row["hits"] for (name, _), row in rows.items() if name == segment) == sum(of_user.values()) > 0
    assert f"| (missing) | 1 | 1 | {rows['town', '(missing)']['hit_rate']:.3f} [" in total.report_markdown


def test_users_without_a_vector_have_lists_of_the_other_channels(undrawn, workspace):
    """u alone has a vector; w has the own item b, v nothing. The merge with vectors would put own and popular items last."""
    put_day(workspace, DAY, {"u": ACROSS}, [("u", "a"), ("v", "a"), ("w", "b")])
    merged, without_vectors, *_ = default_merges(list(ChannelName))
    put_weights(workspace, DAY, [replace(merged, weights=dict.fromkeys(merged.weights, -1.0)), without_vectors])
    _, result = evaluate(workspace)
    assert merged_hits(workspace, 2) == {"u": 0, "v": 1, "w": 1}
    for text in ("**merged list, all users and items of the day, 33% of these not warm** |", "- Users without a vector: 2; "):
        assert text in result.report_markdown


def test_the_first_figures_are_those_of_what_is_served(undrawn, workspace, tmp_path):
    """The report, the terminal and the gate speak of the merged list; the vectors' own rates follow it."""
    _, result = evaluate(workspace)
    rates = result.facts["rates@2"]
    best = max(rate for name, rate in rates["all"].items() if not name.startswith(("model", "merged", "channel")))
    gate = next(check for check in result.checks if check.name == "hit_rate_gate")
    assert list(result.headline.items()) == [
        ("hit_rate@2", rates["all"]["merged"]),
        ("hit_rate@2 gain over the best baseline", pytest.approx(rates["all"]["merged"] - best)),
        ("hit_rate@2 of the vectors", rates["all"]["model"]),
        ("hit_rate@2 of the vectors, unseen", rates["unseen"]["model"]),
        ("gate", gate.facts["verdict"]),
    ]
    numbers = [name for name, value in result.facts.items() if isinstance(value, float)]
    assert numbers == ["hit_rate@1", "ndcg@2", "worth@2 of the vectors", "item_coverage@2 of the vectors"]
    _, result = evaluate(configured(tmp_path, channels={"is_enabled": False}))
    assert (
        result.headline["hit_rate@2"] == result.headline["hit_rate@2 of the vectors"] == result.facts["rates@2"]["all"]["model"]
    )
    assert {row["scorer"] for row in result.facts["segments"]} == {"model"}


def test_list_quality_and_overlap_are_reported(undrawn, workspace):
    # Lists [a, b], [c, d], [a, c]: all 4 items; a is 2 of 6 places. p = 7/13, 3/13, 2/13, 1/13. Against the day before u
    # keeps none of [c, d], v both; w is new.
    _, before = evaluate(workspace, FIRST)
    assert not [name for name in before.facts if "day_before" in name]
    assert "There is no earlier evaluation day to compare the lists with." in before.report_markdown
    _, result = evaluate(workspace)
    bits = -np.log2(np.array([7, 3, 2, 1]) / 13) @ [2, 1, 2, 1] / 6
    assert f"| 2 | 100.00% | 33.3% | {bits:.2f} | 50.0% | 0.500 |" in result.report_markdown
    assert (result.facts["item_coverage@2 of the vectors"], result.facts["kept_since_day_before@2 of the vectors"]) == (
        1.0,
        0.5,
    )
    assert f"Kept since {FIRST}" in result.report_markdown
    assert "over 2 users with a list on both days" in result.report_markdown
    assert "| 1 | 50.00% | 66.7% |" in result.report_markdown  # a, c, a


def test_trend_ends_on_the_day_and_has_a_limited_length(undrawn, workspace, monkeypatch):
    _, first = evaluate(workspace, FIRST)
    _, result = evaluate(workspace)
    # Warm: on the first day u has c to find and it is found (v is new); on the second u has a and c, a is found, w has b, missed.
    assert result.images["hit_rate_trend"].startswith(b"\x89PNG")
    assert f"\n| {DAY} | 2 | 0.333 [" in result.report_markdown
    assert f"\n| {FIRST} | 1 | 1.000 [" in result.report_markdown
    again = run(evaluation.total_hit_rate, workspace, FIRST)  # a later day changes nothing for an earlier one
    assert again.facts == first.facts
    monkeypatch.setattr(evaluation, "TREND_DAYS", 1)
    assert f"\n| {FIRST} |" not in run(evaluation.total_hit_rate, workspace).report_markdown


def test_an_earlier_day_with_ids_of_another_type_is_not_compared(undrawn, workspace):
    evaluate(workspace, FIRST)
    numbers = {"user_id": [1], "topk_ids": [[1, 2]]}
    put(workspace, "hit_rate_detail", FIRST, pa.table(numbers))
    _, result = evaluate(workspace)
    assert "There is no earlier evaluation day to compare the lists with." in result.report_markdown


def test_segments_by_missing_columns_are_reported_together(workspace, tmp_path):
    wrong = [{"name": "one", "by": "aeg"}, {"name": "town", "by": "city"}, {"name": "two", "by": "user:tenure"}]
    faulty = configured(tmp_path, {"segments": wrong})
    with pytest.raises(ConfigError) as caught:
        run(evaluation.hit_rate_detail, faulty)
    first, second = (str(fault) for fault in caught.value.faults)
    assert "evaluation.segments, segment one: expected activity, tenure, item_popularity or a column of user_table: " in first
    assert "user_id, city, got by: aeg" in first
    assert "segment two" in second


def test_segments_changed_since_the_detail_are_refused(undrawn, workspace, tmp_path):
    evaluate(workspace)
    changed = configured(tmp_path, {"segments": [{"name": "place", "by": "city"}]})
    with pytest.raises(SchemaError, match=r"segment_place.*materialize hit_rate_detail of this day again"):
        run(evaluation.total_hit_rate, changed)


def test_only_tables_of_the_configured_segments_are_read(undrawn, workspace, tmp_path):
    root = workspace.tables.partitions.root
    for table in ("user_table", "user_activity", "negative_items"):
        workspace.tables.partitions.fs.rm(f"{root}/{table}", recursive=True)
    with pytest.raises(PartitionMissingError, match="table user_table"):
        run(evaluation.hit_rate_detail, workspace)
    for segments in ([{"name": "activity", "by": "activity"}], []):
        plain = configured(tmp_path, {"segments": segments})
        result = run(evaluation.hit_rate_detail, plain)
        columns = [column.name for column in result.manifest.columns if column.name.startswith("segment")]
        assert columns == [f"segment_{one['name']}" for one in segments]
        assert bool(result.images) == bool(segments)


KEYS = {"hit_counts": ("scorer", "scope", "population", "user_id"), "hit_rate_detail": ("user_id",)}


@pytest.mark.parametrize("name", KEYS)
def test_several_processes_write_the_same_partition_as_one(quick, workspace, monkeypatch, name):
    step = getattr(scoring if name == "hit_counts" else evaluation, name)
    whole = run(step, workspace)
    expected = workspace.tables.read(whole.manifest)
    monkeypatch.setattr("dssm_assets.steps.parallel.RANGE_USERS", 1)
    found = []
    for processes in (1, 2):
        found.append(run(step, worlds.changed(workspace, "evaluation", num_processes=processes)))
    assert found[0].manifest.digest == found[1].manifest.digest
    assert len(found[0].manifest.files) == 3
    assert found[0].manifest.inputs == found[1].manifest.inputs == whole.manifest.inputs
    assert found[0].facts == found[1].facts == whole.facts
    keys = [(key, "ascending") for key in KEYS[name]]
    assert workspace.tables.read(found[1].manifest).sort_by(keys) == expected.sort_by(keys)


def test_sampled_users_are_scored_as_among_all_users(undrawn, workspace, tmp_path):
    def rows(where, step):
        return where.tables.read(run(step, where).manifest).to_pylist()

    whole = {row["user_id"]: row for row in rows(workspace, evaluation.hit_rate_detail)}
    few = configured(tmp_path, {"max_users": 2})
    counted = run(scoring.hit_counts, few)
    assert (counted.facts["evaluated_users"], counted.facts["day_users"]) == (2, 3)
    sample = rows(few, evaluation.hit_rate_detail)
    assert len(sample) == 2
    assert all(row == whole[row["user_id"]] for row in sample)
    assert {row["user_id"] for row in few.tables.read(counted.manifest).to_pylist()} == {row["user_id"] for row in sample}
    report = run(evaluation.total_hit_rate, few).report_markdown
    assert "- Users with a positive event on the day, a sample of 3 (`evaluation.max_users`): 2, with" in report


def test_items_taken_before_the_window_are_discovered_and_not_new(workspace):
    long_ago = {"user_id": ["u"], "item_ids": [["c", "d"]], "event_times_ms": [[0, 1]]}
    put(workspace, "user_history_fg", "2024-01-02", pa.table(long_ago))
    rows = workspace.tables.read(run(scoring.hit_counts, workspace).manifest).to_pylist()
    cells = {(row["scope"], row["user_id"]): row for row in rows if row["population"] == "all" and row["scorer"] == "model"}
    # u has a (window) and c (long ago), v d and zz, w b (window). The model's lists: u a, b; v c, d; w a, c.
    assert {user for scope, user in cells if scope == "discovery"} == {"u", "v"}
    assert {user for scope, user in cells if scope == "new"} == {"v"}
    (unseen,) = (cells[key] for key in cells if key[0] == "unseen")
    assert (unseen["user_id"], unseen["truth_count"], unseen["hits_2"]) == ("v", 2, 1)


def counts(first_user: int, users: int) -> pa.Table:
    """Users in a row of every cell, except discovery/not_warm, which has none; not_warm has even users only."""
    rng = np.random.Generator(np.random.PCG64(first_user))
    rows = []
    for scorer in ("model", "popularity", "recent_popularity"):
        for scope in sorted(Scope):
            for population in sorted(Population):
                for user in range(first_user, first_user + users):
                    if population is Population.NOT_WARM and (scope is Scope.DISCOVERY or user % 2):
                        continue
                    hits = sorted(rng.integers(0, 4, 2).tolist())
                    ndcg = dict(zip(("ndcg_1", "ndcg_2"), rng.random(2).tolist(), strict=True))
                    keys = {"scorer": scorer, "scope": str(scope), "population": str(population), "user_id": user}
                    rows.append({**keys, "truth_count": 3, "hits_1": hits[0], "hits_2": hits[1], **ndcg})
    return pa.Table.from_pylist(rows)


def test_rates_from_stored_cells_equal_those_from_the_table(tmp_path: Path) -> None:
    workspace = open_workspace(worlds.write_config(tmp_path))
    parts = [counts(0, 7), counts(7, 4)]
    staged = []
    for number, part in enumerate(parts):
        path = tmp_path / f"{number}.parquet"
        staged.append((path, workspace.tables.write_part(path, HIT_COUNTS, part.to_batches(), part.schema)))
    manifest = workspace.tables.publish_parts(HIT_COUNTS, "2024-01-09", staged, schema=parts[0].schema)
    whole, cells = split_cells(pa.concat_tables(parts)), read_cells(workspace, manifest)
    assert (Scope.DISCOVERY, Population.NOT_WARM) not in cells
    assert cells[Scope.ALL, Population.NOT_WARM]["model"].column("user_id").to_pylist() == [0, 2, 4, 6, 8, 10]
    total = sum_hits(whole, [1, 2], 100, 5)
    assert sum_hits(cells, [1, 2], 100, 5).equals(total)
    options = {"k": 2, "samples": 100, "seed": 5}
    assert gains_over_best(cells, total, **options) == gains_over_best(whole, total, **options)
