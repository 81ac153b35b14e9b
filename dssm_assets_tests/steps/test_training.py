"""The rows of train_samples from tables written by hand: contents, order of reads, errors (`placed_world`)."""

from dataclasses import replace

import pyarrow as pa
import pytest

from dssm_assets.core.errors import ProvenanceError, SchemaError, remedy_of_missing
from dssm_assets.core.features.fg_tables import ITEM_FEATURES_FG, USER_FEATURES_FG
from dssm_assets.core.samples.sample_tables import POSITIVE_SAMPLE
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.steps.placed_world import (
    CORPUS,
    DAYS,
    NO_HISTORY,
    TAGS,
    FixedBucketizer,
    features,
    open_streams,
    window_rows,
    write_ages,
    write_samples,
    write_tables,
)


@pytest.fixture
def workspace(tmp_path):
    made = open_workspace(worlds.write_config(tmp_path))
    write_tables(made)
    return made


def stored(workspace, rows):
    manifest = workspace.artifacts.publish("train_samples", "2024-01-05", open_streams(rows))
    return {file.name: workspace.artifacts.map_table(manifest, file.name) for file in manifest.files}


def test_window_rows_by_hand(workspace):
    found = stored(workspace, window_rows(workspace))
    samples, users, items = (found[f"{name}.arrow"] for name in ("samples", "user_rows", "item_rows"))
    # Unknown, users 1 and 3 of the first table, then users 1 and 2 of the second, which two days share; an index is value + 1.
    assert users.to_pydict() == {"age": [0, 11, 31, 12, 22]}
    assert items.to_pydict() == {"tags": [[], [6, 7], []], "tags__weights": [[], [0.5, 2.0], []]}
    # (1, x) | (3, x), (1, z), (9, y) | (2, y) | (1, x); on the first day no user was known. Item q is not in the corpus.
    assert samples.column("day").to_pylist() == [0, 1, 1, 1, 2, 3]
    assert samples.column("item_index").to_pylist() == [0, 0, 2, 1, 1, 0]
    assert samples.column("user_row").to_pylist() == [0, 2, 1, 0, 4, 3]
    assert samples.column("item_row").to_pylist() == [0, 1, 0, 2, 2, 1]
    assert samples.column("hour_bucket").to_pylist() == [21, 21, 22, 23, 21, 21]
    assert samples.column_names[-3:] == ["user_row", "item_row", "hour_bucket"]
    assert {samples.schema.field(name).type for name in ("user_row", "item_row")} == {pa.int32()}


def test_feature_rows_of_samples_outside_the_corpus_are_kept(workspace):
    """Which rows are kept follows from the positives, before anything is left out."""
    write_samples(workspace, DAYS[3], rows=[(3, "q")])
    found = stored(workspace, window_rows(workspace))
    assert found["user_rows.arrow"].to_pydict() == {"age": [0, 11, 31, 22, 32]}
    assert found["samples.arrow"].column("user_row").to_pylist() == [0, 2, 1, 0, 3]


def test_a_side_without_features_has_no_rows(workspace):
    found = stored(workspace, window_rows(workspace, bucketizer=FixedBucketizer("age", "hour_bucket")))
    assert found["user_rows.arrow"].num_columns == 0
    assert set(found["samples.arrow"].column("user_row").to_pylist()) == {0}
    assert found["samples.arrow"].column("item_row").to_pylist() == [0, 1, 0, 2, 2, 1]
    assert "hour_bucket" not in found["samples.arrow"].column_names


def test_every_rewritten_table_is_named_with_the_command(workspace):
    write_ages(workspace, DAYS[0], 10, 20, 99)
    workspace.tables.write(ITEM_FEATURES_FG, DAYS[2], features("item_id", ["y", "x"], DAYS[2], **TAGS))
    with pytest.raises(ProvenanceError) as caught:
        window_rows(workspace)
    assert [(fault.where, fault.remedy) for fault in caught.value.faults] == [
        ("sample_fg/2024-01-02, input user_features_fg/2024-01-01", remedy_of_missing("sample_fg", "2024-01-02")),
        ("sample_fg/2024-01-04, input item_features_fg/2024-01-03", remedy_of_missing("sample_fg", "2024-01-04")),
    ]


def test_rewritten_samples_are_named_once(workspace):
    old = workspace.need("positive_sample", DAYS[2])
    table = workspace.tables.read(old)
    write_samples(workspace, DAYS[2], rows=[(3, "x")])
    workspace.tables.write(POSITIVE_SAMPLE, DAYS[2], table, inputs=old.inputs)
    with pytest.raises(ProvenanceError) as caught:
        window_rows(workspace)
    (fault,) = caught.value.faults
    assert fault.where == "positive_sample/2024-01-03, input sample_fg/2024-01-03"
    assert fault.remedy == remedy_of_missing("positive_sample", "2024-01-03")


def test_a_table_rewritten_with_equal_content_is_accepted(workspace):
    write_ages(workspace, DAYS[0], 10, 20, 30)
    window_rows(workspace)


def test_positives_that_do_not_point_to_rows_are_refused_with_their_day(workspace):
    old = workspace.need("positive_sample", DAYS[2])
    table = workspace.tables.read(old).drop_columns(["user_row", "hour_bucket"])
    loose = replace(POSITIVE_SAMPLE, columns=())
    workspace.tables.write(loose, DAYS[2], table, inputs=old.inputs)
    with pytest.raises(SchemaError, match=r"(?s)day 2024-01-03, column hour_bucket.*day 2024-01-03, column user_row"):
        window_rows(workspace)


def test_a_feature_that_became_a_list_is_named_with_its_table_and_day(workspace):
    lists = features("user_id", [1, 2, 3], DAYS[1], age=pa.array([[11], [21], [31]], pa.list_(pa.int64())))
    for ds in DAYS[1:3]:
        workspace.tables.write(USER_FEATURES_FG, ds, lists)
    for ds in DAYS[2:]:
        write_samples(workspace, ds)
    stream = window_rows(workspace).feature_rows("user")
    with pytest.raises(
        SchemaError, match=r"table user_features_fg, day 2024-01-02, column age: expected int32, as on the days before"
    ):
        list(stream.batches)


def test_a_context_feature_that_became_a_list_is_named_with_its_day(workspace):
    old = workspace.need("positive_sample", DAYS[2])
    table = workspace.tables.read(old)
    lists = pa.array([[20]], pa.list_(pa.int64()))
    table = table.set_column(table.column_names.index("hour_bucket"), "hour_bucket", lists)
    workspace.tables.write(POSITIVE_SAMPLE, DAYS[2], table, inputs=old.inputs)
    stream = window_rows(workspace).samples(CORPUS, NO_HISTORY)
    with pytest.raises(SchemaError, match=r"table positive_sample, day 2024-01-03, column hour_bucket: expected int32, as on"):
        list(stream.batches)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, worlds.DAYS[:6]),
        ({"calendar": {"start": worlds.DAYS[2]}}, worlds.DAYS[2:6]),
        ({"window": {"days": 3, "history_days": 3}}, worlds.DAYS[3:6]),
        ({"calendar": {"start": worlds.DAYS[4]}, "window": {"days": 3, "history_days": 3}}, worlds.DAYS[4:6]),
    ],
)
def test_histories_begin_with_the_calendar_and_have_history_days(tmp_path, tmp_path_factory, changes, expected):
    copy = open_workspace(worlds.built_world(tmp_path_factory).copy(tmp_path / "copy", changes))
    assert [day.ds for day in find_history_days(copy, worlds.DAYS[6])] == expected
