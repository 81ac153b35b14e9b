"""`dssm-assets init`: what it writes fits the tables, passes validate, and runs from the first table to the hit rate."""

import datetime as dt
import json
import re
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
import yaml

from dssm_assets.cli import main
from dssm_assets.extras.starter.command import RECIPES
from dssm_assets.extras.starter.starter_config import choose_cut_offs
from dssm_assets.extras.starter.starter_settings import Recipe
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sources(folder):
    worlds.write_sources(folder)
    return folder / "source"


def init(*more, user="source/users.parquet", item="source/items.parquet", behavior="source/behavior.parquet"):
    """Runs the command on the tables of the tiny world, in its time zone."""
    tables = [("--user", user), ("--item", item), ("--behavior", behavior), ("--timezone", worlds.TIMEZONE)]
    return main(["init", *(part for pair in tables if pair[1] for part in pair), "--out", "out", *more])


def init_log(folder, name, header, lines, *more, encoding="utf-8"):
    """Writes a log, runs the command on it alone, and returns the section of the table, or the status if it is not 0."""
    (folder / name).write_text("".join(f"{line}\n" for line in [*([header] if header else []), *lines]), encoding=encoding)
    status = main(["init", "--behavior", name, "--out", "out", "--force", *more])
    return status or written(folder)["tables"]["behavior"]


def written(folder):
    return yaml.safe_load(text(folder))


def text(folder):
    return (folder / "out" / "config.yaml").read_text(encoding="utf-8")


def features(folder):
    found = json.loads((folder / "out" / "fg.json").read_text(encoding="utf-8"))["features"]
    return {feature.get("feature_name", feature.get("sequence_name")): feature for feature in found}


@pytest.mark.parametrize("has_tables", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tables", "a log alone"])
def test_init_writes_a_configuration_that_runs_to_the_hit_rate(sources, tmp_path, capsys, has_tables):
    assert init(**({} if has_tables else {"user": None, "item": None})) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/out/config.yaml matches its data." in out
    assert ("user_table: none: the ids of the log" in out) is not has_tables
    assert set(written(tmp_path)["tables"]) == ({"user", "item", "behavior"} if has_tables else {"behavior"})
    assert main(["validate", "--config", "out/config.yaml"]) == 0
    # Lists of an eighth of 20 items do not hold a group of 10.
    (tmp_path / "out" / "config.yaml").write_text(text(tmp_path).replace("k: [1, 2]", "k: [10]"), encoding="utf-8")
    workspace = worlds.build_all(load_config(tmp_path / "out" / "config.yaml", tmp_path / "out"))
    total = workspace.tables.read(workspace.need("total_hit_rate", worlds.EVALUATION_DAY)).to_pylist()
    # Users take items of their own group of 10 alone: a list of 10 finds them all.
    (rate,) = [row["hit_rate"] for row in total if (row["scorer"], row["scope"], row["population"]) == ("model", "all", "warm")]
    assert rate > 0.9
    users = workspace.tables.read(workspace.need("user_table", worlds.DAYS[0]))
    assert has_tables or users.to_pydict() == {"user_id": sorted({row["user_id"] for row in worlds.log_rows([0])})}


def test_next_commands_can_be_pasted(sources, tmp_path, capsys):
    assert tuple(Recipe) == RECIPES
    assert init("--recipe", "video") == 0
    out = capsys.readouterr().out
    assert "Recipe video: as asked for; by its habits the log is" in out
    assert "evaluation days: " in out and "# Recipe video: as asked for" in text(tmp_path)
    lines = out.split("Next:\n")[1].splitlines()
    assert lines[0].strip() == f"export DSSM_CONFIG={tmp_path}/out/config.yaml DAGSTER_HOME={tmp_path}/out"
    command = r"  dssm-assets materialize train_and_evaluate --from (\S+) --to (\S+) --with-upstream"
    first, last = re.fullmatch(command, lines[1]).groups()
    known = {row["user_id"] for row in worlds.log_rows(range(12))}
    assert re.fullmatch(r"  dssm-assets recall --user-id (\S+) -k 20", lines[4])[1] in known
    assert [line.split("  #")[0].strip() for line in lines[5:7]] == [
        "dssm-assets serve --port 8000",
        "dg dev -m dssm_assets.definitions",
    ]
    assert lines[3].startswith(f"  dssm-assets materialize publish --from {last} --with-upstream")  # features of the day itself
    assert 0 <= (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days < 4
    assert "telemetry: {enabled: false}" in (tmp_path / "out" / "dagster.yaml").read_text()


def test_lists_codes_and_times_become_features_of_their_kind(sources, tmp_path):
    known = pq.read_table(tmp_path / "source" / "users.parquet").column("user_id").to_pylist()
    count = 60
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=17 * n) for n in range(count)]
    columns = {
        "user_id": [*known, *(f"x{n}" for n in range(count - len(known)))],
        "joined": [1_500_000_000 + n for n in range(count)],
        "last_seen": [4_000_000_000 + n for n in range(count)],
        "confirmed": [day.strftime("%d.%m.%Y") for day in days],
        "seen": [day.strftime("%m/%d/%Y") for day in days],
        "born": [day.strftime("%Y%m%d") for day in days],
        "job": [n % 25 for n in range(count)],
        "age": [20 + n % 25 for n in range(count)],
        "likes": [("a|b", "b|c", "a|c")[n % 3] for n in range(count)],
    }
    pq.write_table(pa.table(columns), tmp_path / "source" / "users.parquet")
    assert init() == 0
    table, found = written(tmp_path)["tables"]["user"], features(tmp_path)
    assert (table["time_format"], table["time_columns"]) == ("%d.%m.%Y", ["joined", "confirmed"])
    assert found["likes"] == {
        "feature_name": "likes",
        "feature_type": "id_feature",
        "expression": "user:likes",
        "separator": "|",
    }
    kinds = {"days_since_joined": "raw", "days_since_confirmed": "raw", "job": "id", "age": "raw"}
    assert {name: found[name]["feature_type"] for name in kinds} == {name: f"{kind}_feature" for name, kind in kinds.items()}
    assert "seen" not in found
    assert "not a feature: user.last_seen: look-ahead: of 100% of the users it is later than their first event" in text(
        tmp_path
    )


def test_init_finds_roles_days_and_events(sources, tmp_path):
    assert init() == 0
    config = written(tmp_path)
    assert [str(config["calendar"][key]) for key in ("start", "end")] == [worlds.START, worlds.END]
    behavior = config["tables"]["behavior"]
    assert behavior["columns"] == {"event_time": "ts"}
    assert (behavior["value_columns"], behavior["layout"]) == (["price"], "time_column")
    # buy has more rows than click here; the names say which is the narrower one.
    assert config["events"] == {"funnel": ["click", "buy"], "positive": ["click", "buy"]}
    # Of 12 days a quarter is left to evaluate; 1 of 9 days is spared for the choice of epochs and prior.
    assert (config["window"]["days"], config["training"]["validation_days"], config["model"]["prior"]) == (9, 1, True)
    assert config["evaluation"]["k"] == [1, 2]  # an eighth of 20 items
    assert config["model"]["output_dim"] == 16  # 8 of codes and 8 learned for 20 items
    city = {"feature_name": "city", "feature_type": "id_feature", "expression": "user:city", "value_dim": 1}
    assert features(tmp_path)["city"] == city
    for section in ("window", "model", "training"):
        lines = text(tmp_path).split(f"\n{section}:\n")[1].split("\n\n")[0].splitlines()
        assert lines and all("    # " in line for line in lines), "every setting says which fact chose it"


def test_events_that_take_something_back_are_not_positive(sources, tmp_path):
    rows = worlds.log_rows(range(len(worlds.DAYS)))
    renamed = [{**row, "event": {"click": "cancel", "buy": "order"}[row["event"]]} for row in rows]
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", renamed)
    assert init() == 0
    assert sorted(written(tmp_path)["events"]["funnel"]) == ["cancel", "order"]
    assert written(tmp_path)["events"]["positive"] == ["order"]


def test_init_recognises_csv_columns_with_unknown_names(folder):
    people = pa.table({"no": [f"p{n}" for n in range(9)], "born": [1950 + n for n in range(9)], "note": ["x"] * 9})
    things = pa.table(
        {"code": list(range(100, 130)), "shelf": [f"s{n % 3}" for n in range(30)], "weight": [n / 7 for n in range(30)]}
    )
    log = pa.table(
        {
            "who": [f"p{n % 9}" for n in range(90)],
            "what": [100 + n % 30 for n in range(90)],
            "moment": [f"2024-03-{1 + n // 30:02d} 10:00:{n % 30:02d}" for n in range(90)],
            "amount": [n * 0.5 for n in range(90)],
            "channel": [("web", "app")[n % 2] for n in range(90)],
            "day": [f"2024-03-{1 + n // 30:02d}" for n in range(90)],
            "stars": [1 + n % 5 for n in range(90)],
        }
    )
    for name, table in (("people", people), ("things", things), ("log", log)):
        pcsv.write_csv(table, folder / f"{name}.csv")
    assert init("--name", "mine", user="people.csv", item="things.csv", behavior="log.csv") == 0
    config = written(folder)
    tables = config["tables"]
    assert config["name"] == "mine"
    assert (tables["user"]["columns"], tables["item"]["columns"]) == ({"user_id": "no"}, {"item_id": "code"})
    behavior = tables["behavior"]
    assert behavior["columns"] == {"user_id": "who", "item_id": "what", "event_time": "moment"}
    assert behavior["constant_event"] == "act"
    assert (behavior["value_columns"], behavior["context_columns"]) == (["amount"], ["channel"])
    assert "# not used: stars (integer, 5 distinct, e.g. 1, 2, 3)" in text(folder)
    kinds = {name: feature["feature_type"] for name, feature in features(folder).items()}
    assert (kinds["shelf"], kinds["item_weight"], kinds["request_channel"]) == ("id_feature", "raw_feature", "id_feature")


def write_log(path, time):
    rows = worlds.log_rows(range(12))
    zone = ZoneInfo(worlds.TIMEZONE)
    log = [{**row, "ts": time(dt.datetime.fromtimestamp(row["ts"] / 1000, zone))} for row in rows]
    if path.suffix == ".csv":
        pcsv.write_csv(pa.Table.from_pylist(log), path, pcsv.WriteOptions(delimiter=";"))
    else:
        path.write_text("".join(json.dumps({**row, "device": {"os": row["page"]}, "tags": ["a"]}) + "\n" for row in log))


def test_init_reads_json_lines_and_objects(sources, tmp_path):
    write_log(tmp_path / "log.jsonl", lambda time: time.isoformat())
    assert init(user=None, item=None, behavior="log.jsonl") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert (table["format"], table["columns"], "time_format" in table) == ("json", {"event_time": "ts"}, False)
    assert "# not used: tags (list, 1 distinct, e.g. a); its values cannot be used" in text(tmp_path)
    assert "# not used: device.os (text, 1 distinct, e.g. home); list it in" in text(tmp_path)
    rows = worlds.log_rows(range(12))
    lines = [{"user": {"id": row["user_id"]}, "item": {"id": row["item_id"]}, "context": {"ts": row["ts"]}} for row in rows]
    columns = {"user_id": "user.id", "item_id": "item.id", "event_time": "context.ts"}
    assert init_log(tmp_path, "log.jsonl", "", map(json.dumps, lines))["columns"] == columns


@pytest.mark.parametrize("time_format", ["%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p"], ids=["day first", "month first"])
def test_init_recognises_the_order_of_day_and_month(sources, tmp_path, capsys, time_format):
    """The log's days are 1 to 12 January, so a row of the 13th tells the order."""
    later = dt.timedelta(days=1)
    write_log(tmp_path / "log.csv", lambda time: (time + later).strftime(time_format))
    assert init(behavior="log.csv") == 0
    config = written(tmp_path)
    assert config["tables"]["behavior"]["time_format"] == time_format
    assert str(config["calendar"]["start"]) == worlds.DAYS[1]
    assert "matches its data" in capsys.readouterr().out


def test_init_asks_for_the_format_where_the_order_of_day_and_month_is_not_known(sources, tmp_path, capsys):
    write_log(tmp_path / "log.csv", lambda time: time.strftime("%d.%m.%Y %H:%M:%S"))
    assert init(behavior="log.csv") == 1
    message = capsys.readouterr().err
    assert "column ts: expected times with a day above 12, which tells days from months" in message
    assert "To fix: name the format, such as --time-format '%d.%m.%Y %H:%M:%S'" in message
    assert init("--time-format", "%d.%m", behavior="log.csv") == 1
    assert "--time-format: expected a format of times, got expected a day" in capsys.readouterr().err
    assert init("--time-format", "%d.%m.%Y %H:%M:%S", behavior="log.csv") == 0
    assert str(written(tmp_path)["calendar"]["end"]) == worlds.END


def test_init_reads_a_dump_without_header(folder, capsys):
    """User, time, rating, item, name of the item, with tabs and in Latin-1."""
    times = [dt.datetime(2012, 4, 3, 18, 0, 9) + dt.timedelta(hours=n) for n in range(400)]
    lines = [
        f'{n % 12}\t{time:%a %b %d %H:%M:%S +0000 %Y}\t{n % 5}\tv{n % 11}\tCafé "{n % 11}, old' for n, time in enumerate(times)
    ]
    table = init_log(folder, "checkins.txt", "", lines, encoding="latin-1")
    assert table["columns"] == {"user_id": "column_1", "event_time": "column_2", "item_id": "column_4"}
    assert table["column_names"] == [f"column_{place}" for place in range(1, 6)]
    assert (table["encoding"], table["time_format"]) == ("cp1252", "%a %b %d %H:%M:%S %z %Y")
    output = capsys.readouterr().out
    assert "has no header line: by their order, users are in column_1, items in column_4 and times in column_2;" in output
    assert "checkins.txt is not in UTF-8: read as cp1252" in output


def test_a_folder_of_texts_without_header_is_no_table_of_hundreds_of_columns(folder, capsys):
    """No first line has a number or a time, so that each could be a header; but those of two files are different."""
    (folder / "log").mkdir()
    for part in range(120):
        lines = [f"user {n % 49};film {n % 11};seen;week {n % 12}: day {n % 7}\n" for n in range(part * 100, part * 100 + 100)]
        (folder / "log" / f"part-{part:03}.csv").write_text("".join(lines))
    assert init(user=None, item=None, behavior="log") == 1
    message = capsys.readouterr().err
    assert (
        "column of timestamps: expected timestamps" in message
        and "got column_3: text, 1 distinct, e.g. seen; column_4" in message
    )
    assert len(message) < 600


def test_init_reads_aligned_columns_in_a_folder_of_files_without_a_suffix(folder, capsys):
    lines = [f"{n % 12:>8} {n % 11:<6} {1_511_544_070 + n * 3600} \r\n" for n in range(400)]
    (folder / "log").mkdir()
    for part in (0, 1):
        (folder / "log" / f"part-{part}").write_text("".join(lines[200 * part : 200 * part + 200]))
    assert init(user=None, item=None, behavior="log") == 0
    columns = {"user_id": "column_1", "item_id": "column_2", "event_time": "column_3"}
    assert written(folder)["tables"]["behavior"]["columns"] == columns
    assert "behavior_table: 400 rows" in capsys.readouterr().out


def test_a_thin_tail_is_named_and_days_before_it_are_evaluated(folder, capsys):
    """Of 44 days the first 16 have 60 rows each, and the others one."""
    days = [1_511_544_070 + 86_400 * day for day in range(44)]
    lines = [f"{n % 12},{n % 11},{time + n}" for day, time in enumerate(days) for n in range(60 if day < 16 else 1)]
    init_log(folder, "log.csv", "user,item,time", lines)
    out = capsys.readouterr().out
    assert "Note: a thin tail: the last 28 days have 28 positive events, the 16 days before them 960" in out
    assert "--from 2017-12-06 --to 2017-12-09 " in out
    assert re.search(r"makes \d+ partitions of 16 days and 4 fits: about 3 min ", out)
    config = written(folder)
    assert (config["window"]["days"], config["training"]["epochs"], str(config["calendar"]["end"])) == (12, 20, "2018-01-06")
    assert "# Note: a thin tail" in text(folder)
    (of_terminal,) = re.findall("evaluation days: (.*)", out)
    assert f"# Evaluation days: {of_terminal}.\n" in text(folder)


def test_ids_that_do_not_come_back_are_no_users(folder, capsys):
    """Each basket has its own id and one day: no day has a user that an earlier one knows."""
    lines = [f"{n // 2},item {n % 11},2026-01-{1 + n // 20:02d}" for n in range(400)]
    assert init_log(folder, "log.csv", "Transaction,Item,Date", lines, "--user-id", "Transaction") == 1
    out = capsys.readouterr().out
    assert "Note: 0.0% of recent events are by ids in Transaction that have an earlier day: if they are orders" in out
    assert "column user_id: expected a day with a user and an item that the" in out and "Next:" not in out


def test_a_dump_of_events_and_rows_without_users(folder, capsys):
    """Number of the row, user (missing in a tenth), item, category, event, seconds; no header line."""
    events = ["pv", "pv", "pv", "cart", "buy"]
    user = ["\\N" if n % 10 == 9 else n % 12 for n in range(600)]
    lines = [f"{n},{user[n]},{n % 11},{n % 11 % 2},{events[n % 5]},{1_511_544_070 + n * 3600}" for n in range(600)]
    table = init_log(folder, "UserBehavior.csv", "", lines, "--user-id", "column_2", "--item-id", "column_3")
    columns = {"user_id": "column_2", "item_id": "column_3", "event": "column_5", "event_time": "column_6"}
    assert (table["columns"], table["incomplete_rows"]) == (columns, "drop")
    assert written(folder)["events"]["funnel"] == ["pv", "cart", "buy"]
    out = capsys.readouterr().out
    assert "Note: 60 of 600 rows have no column_2: they are left out." in out
    assert "540 rows from" in out


def test_ids_that_some_rows_lack_may_be_floats(folder, capsys):
    """As pandas writes the invoices of a shop whose guests have no number: 17000.0, or nothing; the second log has NA and hours of the day."""
    user = [f"{17_000 + n % 12}.0" if n % 10 else "" for n in range(600)]
    lines = [f"{user[n]},A{n % 11},2026-01-{1 + n // 30:02d} 10:00" for n in range(600)]
    assert init_log(folder, "log.csv", "CustomerID,StockCode,InvoiceDate", lines)["incomplete_rows"] == "drop"
    assert "recall --user-id 17000 " in capsys.readouterr().out
    lines = [f"{user[n] or 'NA'},A{n % 11},2026-01-{1 + n // 30:02d},{n % 24}" for n in range(600)]
    table = init_log(folder, "log.csv", "CustomerID,StockCode,date,hour", lines)
    assert (table["incomplete_rows"], table["clock_column"], table["time_format"]) == ("drop", "hour", "%Y-%m-%d %H")
    out = capsys.readouterr().out
    assert "Note: rows have NA in place of CustomerID: they are left out." in out and "540 rows from" in out


def test_a_log_without_times_is_refused(folder, capsys):
    assert init_log(folder, "ratings.csv", '"User-ID";"ISBN";"Book-Rating"', ['"1";"034545104X";"0"']) == 1
    err = capsys.readouterr().err
    assert "got Book-Rating: integer" in err and "docs/platform.md has logs without times" in err


def test_columns_that_follow_from_the_item_are_no_contexts(folder):
    lines = [f"{n % 13},{n % 11},2026-01-{1 + n // 20:02d},{'ab'[n % 11 > 4]},{'xyz'[n % 3]}" for n in range(400)]
    assert init_log(folder, "log.csv", "user,item,time,category,device", lines)["context_columns"] == ["device"]
    assert "# not used: category (text, 2 distinct, e.g. a, b); it follows from the item, so no request knows it" in text(
        folder
    )


@pytest.mark.parametrize(
    ("items", "ks"),
    [(9, [1]), (94, [1, 2, 5, 10]), (167, [2, 5, 10, 20]), (1599, [10, 20, 50, 100]), (1682, [10, 50, 100, 200])],
)
def test_lists_of_a_small_corpus_are_short(items, ks):
    assert choose_cut_offs(items) == ks


TIMES = [dt.datetime(2016, 10, 30, 9, 58, 11) + dt.timedelta(hours=n) for n in range(400)]


@pytest.mark.parametrize(
    ("date", "clock", "time_format"),
    [
        ("%Y-%m-%d", "%H:%M:%S", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%d 00:00:00", "%H:%M", "%Y-%m-%d %H:%M"),
        ("%d-%m-%Y", "%H:%M", "%d-%m-%Y %H:%M"),
    ],
)
def test_init_reads_date_and_time_of_day_together(folder, date, clock, time_format):
    lines = [f"{n % 12},{n % 11},{time:{date}},{time:{clock}}" for n, time in enumerate(TIMES)]
    table = init_log(folder, "log.csv", "member,Item,Date,Time", lines)
    assert (table["columns"]["event_time"], table["clock_column"], table["time_format"]) == ("Date", "Time", time_format)
    assert "context_columns" not in table


def test_init_reads_columns_of_times_of_day_in_parquet(folder):
    columns = {"member": [n % 12 for n in range(400)], "Item": [n % 11 for n in range(400)]}
    columns |= {"Date": [time.date() for time in TIMES], "Time": [time.time() for time in TIMES]}
    pq.write_table(pa.table(columns), folder / "log.parquet")
    assert init(user=None, item=None, behavior="log.parquet") == 0
    table = written(folder)["tables"]["behavior"]
    assert (table["clock_column"], table["time_format"]) == ("Time", "%Y-%m-%d %H:%M:%S.%f")


def test_init_reads_columns_of_a_german_shop(folder):
    lines = [
        f"B{n};{n % 7};A-{n % 11};{1 + n % 20:02d}.11.2025 {8 + n % 12}:{n % 60:02d};{n % 3};{n % 9},{n % 10}5"
        for n in range(400)
    ]
    table = init_log(folder, "log.csv", "Bestellnr;Kunde;Artikelnummer;Bestelldatum;Menge;Einzelpreis", lines)
    assert table["columns"] == {"user_id": "Kunde", "item_id": "Artikelnummer", "event_time": "Bestelldatum"}
    assert (table["time_format"], table["decimal_mark"]) == ("%d.%m.%Y %H:%M", ",")
    assert table["value_columns"] == ["Einzelpreis"]


def test_json_next_to_a_table_does_not_belong_to_it(sources, tmp_path):
    (tmp_path / "log").mkdir()
    (sources / "behavior.parquet").rename(tmp_path / "log" / "part-0.parquet")
    for name in ("schema.json", "meta.json"):
        (tmp_path / "log" / name).write_text('{"commitInfo": {}}\n')
    assert init(behavior="log") == 0
    assert written(tmp_path)["tables"]["behavior"]["format"] == "parquet"


def test_numbers_with_a_comma_set_the_decimal_mark_of_csv_alone(sources, tmp_path):
    rows = [{**row, "note": ";\n", "price": f"{n},5"} for n, row in enumerate(worlds.item_rows())]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    assert init(item="items.parquet") == 0
    assert "decimal_mark" not in written(tmp_path)["tables"]["item"]


def test_lists_of_items_become_features(sources, tmp_path):
    rows = [
        {**row, "tags": [f"t{n % 3}", "all"], "more": {"kind": f"k{n % 4}"}, "parts": [{"n": 1}]}
        for n, row in enumerate(worlds.item_rows())
    ]
    (tmp_path / "items.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert init(item="items.ndjson") == 0
    assert features(tmp_path)["tags"] == {"feature_name": "tags", "feature_type": "id_feature", "expression": "item:tags"}
    assert features(tmp_path)["more.kind"]["expression"] == "item:more.kind"
    assert "# not a feature: item.parts: nested" in text(tmp_path)


def test_init_recognises_day_folders_and_empty_days(sources, tmp_path):
    for day in (0, 1, 3):
        worlds.write_rows(tmp_path / "log" / f"ds={worlds.DAYS[day]}" / "part.parquet", worlds.log_rows([day]))
    init(behavior="log")
    behavior = written(tmp_path)["tables"]["behavior"]
    assert (behavior["layout"], behavior["allow_empty_days"]) == ("ds_folders", True)
    assert str(written(tmp_path)["calendar"]["end"]) == worlds.DAYS[3]


def test_init_names_the_option_for_a_role_that_it_cannot_guess(sources, tmp_path, capsys):
    pq.write_table(pa.table({"user_id": ["zz"], "item_id": ["a_00"], "n": [1]}), tmp_path / "log.parquet")
    assert init(behavior="log.parquet") == 1
    complaint = capsys.readouterr().err
    assert "name it with --user-id" in complaint and "name it with --event-time" in complaint
    assert not (tmp_path / "out").exists()


def test_given_columns_override_guesses_and_must_exist(sources, tmp_path, capsys):
    for option, name, more in (("--event-time", "when", {}), ("--user-id", "who", {"user": None})):
        assert init(option, name, **more) == 1
        said = f"ConfigError: {option}: expected a column of the log: event, item_id, page, price, ts, user_id, got '{name}'."
        assert capsys.readouterr().err.strip() == f"{said} To fix: correct its spelling"
    assert init("--event", "page") == 0
    assert written(tmp_path)["events"]["funnel"] == ["home"]


def test_init_keeps_existing_files_without_force(sources, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("mine")
    assert init() == 1
    assert "choose another --out, or pass --force" in capsys.readouterr().err
    assert text(tmp_path) == "mine"
    assert init("--force") == 0


def test_init_refuses_a_log_of_one_day_a_missing_table_and_an_unknown_zone(sources, capsys):
    worlds.write_rows(sources / "behavior.parquet", worlds.log_rows([4]))
    assert init() == 1
    assert "expected rows of at least two days: one to learn from and one to score" in capsys.readouterr().err
    assert init(user="source/missing.parquet") == 1
    assert "expected a file or folder, got no such file or folder" in capsys.readouterr().err
    for zone in ("../x", "Mars/Phobos"):
        assert init("--timezone", zone) == 1
        expected = f"--timezone: expected the name of a time zone, such as Europe/Berlin, got '{zone}'. To fix: correct it"
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("stray", ["0001-01-01", "1970-01-01", "2099-01-01", "9999-12-31 23:59:59"])
def test_stray_dates_do_not_become_the_calendar(folder, capsys, stray):
    lines = [f"u{n % 5},i{n % 7},2024-01-{n % 10 + 1:02}" for n in range(40)]
    init_log(folder, "log.csv", "user_id,item_id,event_time", [*lines, f"u1,i1,{stray}"])
    assert written(folder)["calendar"]["start"] == dt.date(2024, 1, 1)
    assert written(folder)["calendar"]["end"] == dt.date(2024, 1, 10)
    assert "Note: 1 rows have times ahead of today, or far before all others" in capsys.readouterr().out
