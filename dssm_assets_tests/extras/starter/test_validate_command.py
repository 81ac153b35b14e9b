"""`dssm-assets validate`: every fault of a configuration and its data, listed before any run."""

import datetime as dt
import json
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dssm_assets.cli import main
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.extras.starter.config_checks import Validation, describe_validation, validate
from dssm_assets_tests import worlds

TODAY = dt.date(2024, 2, 1)


def wheres(loaded):
    """Returns the places of all faults."""
    return sorted(fault.where for fault in validate(loaded, TODAY).faults)


def fault(loaded):
    """Returns the one fault, as text."""
    (found,) = validate(loaded, TODAY).faults
    return str(found)


def test_validate_of_matching_data_returns_figures_and_no_faults(tmp_path):
    found = validate(worlds.write_world(tmp_path), TODAY)
    assert found.faults == []
    # 12 days x 12 users x 3 purchases, and clicks of 1, 2, 3 items in turn: 2 of each user and day on average.
    assert found.figures == {
        "days": "2024-01-01 to 2024-01-12, the first evaluation day is 2024-01-07",
        "user_table": "11 rows, 2 columns",
        "item_table": "20 rows, 3 columns",
        "behavior_table": "720 rows from 2024-01-01 to 2024-01-12",
        "events": "buy 432, click 288",
        "evaluation days": "6 of 6 after a window of 6 days have 30 warm pairs or more, the first is 2024-01-07, the last 2024-01-12; "
        "no day has the 100 pairs by 20 users that a verdict of the gate needs, so every bundle would be published",
        "users of the log": "12, 11 of them with a row in user_table",
        "items of the log": "20, 20 of them with a row in item_table",
    }


def test_validate_lists_all_faults(tmp_path):
    fg = {"features": [{"feature_name": "age", "feature_type": "raw_feature", "expression": "user:age"}]}
    changes = {
        "calendar": {"end": "2024-01-14"},
        "events": {"funnel": ["click", "purchase"], "positive": ["purchase"]},
        "window": {"days": 30},
        "raw_features": {"history_columns": ["brand"], "preference_columns": ["color"]},
        "evaluation": {"segments": [{"name": "towns", "by": "town"}]},
        "features": {"fg": fg, "exclude": ["ages"]},
        "statistics": {"features": {"agee": {"min_count": 2}}},
    }
    assert wheres(worlds.write_world(tmp_path, changes)) == [
        "features.exclude, ages",
        "fg.json, feature age",
        "key calendar",
        "key evaluation.segments",
        "key events.funnel, purchase",
        "key raw_features.history_columns",
        "key raw_features.preference_columns",
        "statistics.features, key agee",
        "table behavior_table",
        "table behavior_table, column event",
    ]


SVD = {"training": {"svd_init": {"embedding": "item"}}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (worlds.merged(SVD, {"model": {"skip": False}}), "training.svd_init: expected model.skip"),
        (
            {"model": {"skip": True}, "training": {"svd_init": {"embedding": "items"}}},
            "training.svd_init.embedding: expected an embedding .* got items; shared: category, item",
        ),
        # 64 for the item that is configured and 4, the least of its policy, for the category.
        (
            worlds.merged(SVD, {"model": {"skip": True, "output_dim": 64}, "statistics": {"embedding_dim": {"item": 64}}}),
            "training.svd_init: expected model.output_dim of at least 68, .*got 64",
        ),
        (
            worlds.merged(SVD, {"model": {"frozen_embedding": "category"}}),
            "training.svd_init.embedding: expected category, the embedding of model.frozen_embedding, got item",
        ),
        (
            worlds.merged(
                SVD, {"model": {"frozen_embedding": "item", "output_dim": 8}, "statistics": {"embedding_dim": {"item": 8}}}
            ),
            "model.frozen_embedding: expected model.output_dim above 8",
        ),
        (
            {
                "model": {"poolings": [{"kind": "sequence", "num_heads": 3}]},
                "statistics": {"embedding_dim": {"item": 8, "category": 8}},
            },
            "model.poolings, num_heads: expected a divisor of 16",
        ),
        (
            {"model": {"num_interests": 2, "poolings": [{"kind": "attention"}], "history_length": 0}},
            "poolings need a history_length",
        ),
        ({"tables": {"behavior": {"keep": ["hour"]}}}, "column hour: expected a name of its own in behavior"),
    ],
)
def test_what_needs_no_fitted_data_is_refused_before_any_run(tmp_path, changes, said):
    try:
        found = validate(worlds.write_world(tmp_path, changes), TODAY).faults
    except ConfigError as error:
        found = error.faults
    assert any(re.search(said, str(one)) for one in found), found


def test_widths_that_the_data_decides_are_not_guessed(tmp_path):
    # With two values each, item and category are 4 wide: 8 outputs may do, and whether 3 heads divide the width is not known yet.
    changes = {"model": {"skip": True, "output_dim": 8, "poolings": [{"kind": "mean"}, {"kind": "sequence", "num_heads": 3}]}}
    assert validate(worlds.write_world(tmp_path, worlds.merged(SVD, changes)), TODAY).faults == []


def test_features_and_columns_that_cannot_be_are_refused(tmp_path):
    fg = worlds.merged(worlds.FG, {})
    fg["features"][-1]["features"].append(
        {"feature_name": "other", "feature_type": "id_feature", "expression": "user:category", "embedding_name": "alone"}
    )
    fg["features"].append(
        {"feature_name": "weight", "feature_type": "id_feature", "expression": "item:category", "value_dim": 1}
    )
    changes = {"raw_features": {"history_columns": ["category", "page"]}}
    segments = {"evaluation": {"segments": [{"name": "towns", "by": "towns"}]}}
    loaded = worlds.write_world(tmp_path, {"features": {"fg": fg}, **changes, **segments})
    users = [{**row, "click_count_1d": 1, "towns": ["x"]} for row in worlds.user_rows()]
    worlds.write_rows(tmp_path / "source" / "users.parquet", users)
    worlds.write_rows(tmp_path / "source" / "items.parquet", [{**row, "page": "p"} for row in worlds.item_rows()])
    assert wheres(loaded) == [
        "feature history__other",
        "features of side item, column weight",
        "table item_table, column page",
        "table user_table, column click_count_1d",
        "table user_table, column towns",
    ]


def test_attributes_that_are_not_utf_8_are_refused(tmp_path):
    loaded = worlds.write_world(tmp_path)
    city = pa.Array.from_buffers(pa.string(), 2, pa.array([b"x", b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"user_id": ["a0", "a1"], "city": city}), tmp_path / "source" / "users.parquet")
    assert fault(loaded).startswith("table user_table, column city: expected text in UTF-8")


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("s4://bucket/tables", "key storage.root, s4://bucket/tables: expected a place that can be used"),
        ("{data}/source/users.parquet/tables", "key storage.root, .*Not a directory"),
    ],
)
def test_a_root_where_nothing_can_be_stored_is_refused(tmp_path, root, said):
    loaded = worlds.write_world(tmp_path, {"storage": {"root": root.replace("{data}", str(tmp_path))}})
    assert re.match(said, fault(loaded))


@pytest.mark.parametrize(
    ("line", "said"), [("seed: 8", "the key 'seed' is given twice in one mapping"), ("colour: red", "unknown key 'colour'")]
)
def test_keys_that_are_unknown_or_given_twice_are_refused(tmp_path, capsys, line, said):
    loaded = worlds.write_world(tmp_path)
    loaded.path.write_text(f"{loaded.path.read_text()}{line}\n")
    assert main(["validate", "--config", str(loaded.path)]) == 1
    assert said in capsys.readouterr().err


def test_validate_names_the_extra_of_a_baseline_that_is_not_installed(tmp_path, monkeypatch):
    loaded = worlds.write_world(tmp_path, {"evaluation": {"extra_baselines": ["als"]}})
    assert wheres(loaded) == []
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    assert fault(loaded).startswith("baseline als: expected the package implicit, got not installed. To fix: run pip install")


def test_validate_names_missing_columns_and_files_together(tmp_path):
    loaded = worlds.write_world(
        tmp_path, {"tables": {"user": {"columns": {"user_id": "uid"}}, "behavior": {"columns": {"event_time": "when"}}}}
    )
    (tmp_path / "source" / "items.parquet").unlink()
    # user_id is mapped to a column that is not there, and one of its own name is.
    assert [place.partition(",")[0] for place in wheres(loaded)] == [
        "table behavior_table",
        "table item_table",
        "table user_table",
        "table user_table",
    ]


def test_an_unknown_event_is_named_with_its_row_count(tmp_path):
    loaded = worlds.write_world(tmp_path, {"events": {"funnel": ["buy"], "positive": ["buy"]}})
    event, feature = sorted(map(str, validate(loaded, TODAY).faults), reverse=True)
    assert event == (
        "table behavior_table, column event: expected events of the funnel ['buy'], got 'click' (288 rows). "
        "To fix: add them to events.funnel, or drop those rows in the source"
    )
    assert "got 'click_count_1d'" in feature, "without the event there is no count of it"


def test_days_of_the_calendar_without_rows(tmp_path):
    loaded = worlds.write_world(tmp_path)
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", worlds.log_rows([0, 1, 2, 3, 4, 6, 7, 8, 10, 11]))
    assert "got nothing for 2024-01-06, 2024-01-10. To fix: load those days" in fault(loaded)
    allowed = worlds.write_config(tmp_path, {"tables": {"behavior": {"allow_empty_days": True}}})
    assert validate(allowed, TODAY).faults == []
    (tmp_path / "empty").mkdir()
    behavior = {"uri": "{data}/empty", "layout": "ds_folders"}
    assert "got nothing for 2024-01-01, 2024-01-02" in fault(worlds.write_config(tmp_path, {"tables": {"behavior": behavior}}))


def test_calendars_that_end_before_or_after_the_log(tmp_path):
    loaded = worlds.write_world(tmp_path, {"calendar": {"end": "2024-01-10"}})
    found = validate(loaded, TODAY)
    assert found.faults == []
    outside = len(worlds.log_rows([10, 11]))
    assert found.figures["behavior_table"] == f"720 rows from 2024-01-01 to 2024-01-12, {outside} of them outside the calendar"
    loaded = worlds.write_config(tmp_path, {"calendar": {"end": None}})  # up to yesterday
    assert validate(loaded, dt.date(2024, 1, 13)).faults == []
    (found,) = validate(loaded, dt.date(2024, 1, 14)).faults
    assert "nothing for 2024-01-13" in str(found)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, 2], "column user_id: expected one type of id, got string and int64. To fix: store the ids with one type"),
        (["x", "y"], "got none of 12 ids of the log, such as 'a0', in user_table, such as 'x'"),
        (["a0", "a0"], "1 ids more than once"),
    ],
)
def test_ids_of_users_that_do_not_fit_the_log_are_refused(tmp_path, ids, said):
    loaded = worlds.write_world(tmp_path)
    pq.write_table(pa.table({"user_id": ids, "city": ["x", "y"]}), tmp_path / "source" / "users.parquet")
    assert said in fault(loaded)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", [None, "a1"], "a value in every row, got 1 missing in 2 rows"),
        ("price", ["much", "2"], "expected numbers"),
        ("ts", ["soon", "2024-01-01"], "column event_time"),
    ],
)
def test_bad_values_of_the_log_are_named_by_column(tmp_path, column, values, message):
    loaded = worlds.write_world(tmp_path)
    rows = {
        "user_id": ["a0", "a1"],
        "item_id": ["a_00", "a_01"],
        "event": ["buy", "click"],
        "ts": ["2024-01-01", "2024-01-02"],
        "price": ["1", "2"],
        "page": ["p", "p"],
    }
    pq.write_table(pa.table({**rows, column: values}), tmp_path / "source" / "behavior.parquet")
    found = [str(one) for one in validate(loaded, TODAY).faults]
    assert any(message in one for one in found)


def test_times_later_than_the_first_event_are_named(tmp_path):
    """Users join before their first event; a last visit is known on no day before it."""
    loaded = worlds.write_world(tmp_path, {"tables": {"user": {"time_columns": ["joined", "last_seen"]}}})
    path = tmp_path / "source" / "users.parquet"
    users = pq.read_table(path)
    for name, time in (("joined", dt.datetime(2023, 1, 1)), ("last_seen", dt.datetime(2024, 1, 12, 1))):
        users = users.append_column(name, pa.array([time] * users.num_rows))
    pq.write_table(users, path)
    found = validate(loaded, TODAY)
    said = {key: text for key, text in found.figures.items() if key.startswith("look-ahead")}
    assert list(said) == ["look-ahead in user_table, column last_seen"]
    assert said["look-ahead in user_table, column last_seen"].startswith(
        "of 100% of the users it is later than their first event"
    )


def test_missing_day_folders_of_an_entity_table(tmp_path):
    loaded = worlds.write_world(tmp_path, {"tables": {"item": {"uri": "{data}/items", "layout": "ds_folders"}}})
    for day in worlds.DAYS[:-2]:
        worlds.write_rows(tmp_path / "items" / f"ds={day}" / "part.parquet", worlds.item_rows())
    assert fault(loaded) == (
        "table item_table: expected every day of the calendar, got nothing for 2024-01-11, 2024-01-12. "
        "To fix: load those days, or change calendar"
    )


def test_days_of_json_lines_may_lack_values_unless_all_do(tmp_path):
    log = {"uri": "{data}/log", "layout": "ds_folders", "format": "json"}
    loaded = worlds.write_world(tmp_path, {"tables": {"behavior": log}})
    for number, day in enumerate(worlds.DAYS):
        (tmp_path / "log" / f"ds={day}").mkdir(parents=True)
        missing = {"page", "price"} if number else {"page"}
        rows = [{name: row[name] for name in row if name not in missing} for row in worlds.log_rows([number])]
        (tmp_path / "log" / f"ds={day}" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert fault(loaded).startswith(
        "table behavior_table, column page: expected the column to exist on one of the days, got no day that has it. To fix:"
    )
    worlds.run_steps(loaded, ["behavior_table"], worlds.DAYS[:3])


def test_a_sequence_reads_the_history_and_context_the_sample(tmp_path):
    columns = {"raw_features": {"history_columns": []}, "tables": {"behavior": {"context_columns": []}}}
    fg = worlds.merged(worlds.FG, {})
    fg["features"].append({"feature_name": "page", "feature_type": "id_feature", "expression": "context:page"})
    loaded = worlds.write_world(tmp_path, {**columns, "features": {"fg": fg}})
    found = [str(one) for one in validate(loaded, TODAY).faults]
    assert len(found) == 2
    assert found[0].startswith("fg.json, feature page: expected a column of sample: ")
    assert found[1].endswith("got 'category'. To fix: add it to raw_features.history_columns, or correct the expression")


def test_a_faulty_feature_is_one_more_fault(tmp_path, capsys):
    loaded = worlds.write_world(tmp_path, {"events": {"funnel": ["buy"], "positive": ["buy"]}})
    raw = yaml.safe_load(loaded.path.read_text())
    raw["features"]["fg"]["features"][0]["feature_type"] = "no_feature"
    loaded.path.write_text(yaml.safe_dump(raw))
    assert main(["validate", "--config", str(loaded.path)]) == 1
    out = capsys.readouterr().out
    assert "config.yaml: 2 faults" in out
    assert "  1. fg.json, " in out
    assert "  2. table behavior_table, column event: " in out


def test_validate_uses_the_configuration_of_the_environment(tmp_path, monkeypatch, capsys):
    loaded = worlds.write_world(tmp_path)
    monkeypatch.setenv("DSSM_CONFIG", str(loaded.path))
    monkeypatch.setenv("DSSM_HOME", str(loaded.home))
    assert main(["validate"]) == 0
    assert f"{loaded.path} matches its data." in capsys.readouterr().out


def test_faults_that_differ_in_the_file_are_printed_once_with_a_count(capsys):
    def fault_in(file, column):
        return Fault(
            f"table log, file /a b/x={file}/p.parquet, column {column}", "the column to exist", "columns u, t", "map it"
        )

    found = Validation([fault_in(3, "time"), fault_in(1, "time"), fault_in(2, "item"), fault_in(2, "time")])
    print(describe_validation(found, "config.yaml"))
    assert capsys.readouterr().out.splitlines() == [
        "config.yaml: 4 faults",
        "  1. table log, file /a b/x=1/p.parquet, column time: expected the column to exist, got columns u, t. To fix: map it. "
        "The same in 2 more files, the last one: table log, file /a b/x=3/p.parquet, column time.",
        "  2. table log, file /a b/x=2/p.parquet, column item: expected the column to exist, got columns u, t. To fix: map it",
    ]
