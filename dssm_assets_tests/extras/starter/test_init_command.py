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
from dssm_assets.extras.starter.starter_config import choose_cut_offs
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds


@pytest.fixture
def sources(tmp_path, monkeypatch):
    worlds.write_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "source"


def init(*more, user="source/users.parquet", item="source/items.parquet", behavior="source/behavior.parquet"):
    tables = [("--user", user), ("--item", item), ("--behavior", behavior)]
    return main(["init", *(part for pair in tables if pair[1] for part in pair), "--out", "out", *more])


def written(tmp_path):
    return yaml.safe_load((tmp_path / "out" / "config.yaml").read_text(encoding="utf-8"))


def load_with_lists_of(tmp_path, k):
    """Returns the configuration with lists of another length: those of a tenth of 20 items do not hold a group of 10."""
    path = tmp_path / "out" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert "  k: [1, 2]    # the longest is no more than an eighth of the items" in text
    path.write_text(text.replace("k: [1, 2]", f"k: [{k}]"), encoding="utf-8")
    return load_config(path, tmp_path / "out")


def features(tmp_path):
    found = json.loads((tmp_path / "out" / "fg.json").read_text(encoding="utf-8"))["features"]
    return {feature.get("feature_name", feature.get("sequence_name")): feature for feature in found}


def test_init_writes_a_configuration_that_runs_to_the_hit_rate(sources, tmp_path, capsys):
    assert init("--timezone", worlds.TIMEZONE) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/out/config.yaml matches its data." in out
    assert f"DSSM_CONFIG={tmp_path}/out/config.yaml" in out
    assert main(["validate", "--config", "out/config.yaml"]) == 0
    workspace = worlds.build_all(load_with_lists_of(tmp_path, 10))
    total = workspace.tables.read(workspace.need("total_hit_rate", worlds.EVALUATION_DAY)).to_pylist()
    # Users take items of their own group of 10 alone: a list of 10 finds them all.
    (rate,) = [row["hit_rate"] for row in total if (row["scorer"], row["scope"], row["population"]) == ("model", "all", "warm")]
    assert rate > 0.9


def test_a_log_alone_runs_to_the_hit_rate(sources, tmp_path, capsys):
    assert init("--timezone", worlds.TIMEZONE, user=None, item=None) == 0
    assert set(written(tmp_path)["tables"]) == {"behavior"}
    out = capsys.readouterr().out
    assert "user_table: none: the ids of the log" in out
    workspace = worlds.build_all(load_with_lists_of(tmp_path, 10))
    users = workspace.tables.read(workspace.need("user_table", worlds.DAYS[0]))
    assert users.column_names == ["user_id"]
    assert users.column(0).to_pylist() == sorted({row["user_id"] for row in worlds.log_rows([0])})
    total = workspace.tables.read(workspace.need("total_hit_rate", worlds.EVALUATION_DAY)).to_pylist()
    (rate,) = [row["hit_rate"] for row in total if (row["scorer"], row["scope"], row["population"]) == ("model", "all", "warm")]
    assert rate > 0.9


def test_next_commands_can_be_pasted(sources, tmp_path, capsys):
    assert init("--timezone", worlds.TIMEZONE, "--recipe", "video") == 0
    out = capsys.readouterr().out
    assert "Recipe video: as asked for; by its habits the log is" in out
    assert "evaluation days: " in out and "# Recipe video: as asked for" in (tmp_path / "out" / "config.yaml").read_text()
    lines = out.split("Next:\n")[1].splitlines()
    assert lines[0].strip() == f"export DSSM_CONFIG={tmp_path}/out/config.yaml DAGSTER_HOME={tmp_path}/out"
    command = r"  dssm-assets materialize train_and_evaluate --from (\S+) --to (\S+) --with-upstream"
    first, last = re.fullmatch(command, lines[1]).groups()
    known = {row["user_id"] for row in worlds.log_rows(range(12))}
    assert re.fullmatch(r"  dssm-assets recall --user-id (\S+) -k 20", lines[4])[1] in known
    assert [line.split("  #")[0] for line in lines[5:7]] == [
        "  dssm-assets serve --port 8000",
        "  dg dev -m dssm_assets.definitions",
    ]
    assert lines[3].startswith(f"  dssm-assets materialize publish --from {last} --with-upstream")  # features of the day itself
    assert 0 <= (dt.date.fromisoformat(last) - dt.date.fromisoformat(first)).days < 4
    assert "telemetry: {enabled: false}" in (tmp_path / "out" / "dagster.yaml").read_text()


def test_lists_codes_and_times_become_features_of_their_kind(sources, tmp_path):
    known = pq.read_table(tmp_path / "source" / "users.parquet").column("user_id").to_pylist()
    count = 60
    users = pa.table({"user_id": [*known, *(f"x{n}" for n in range(count - len(known)))]})
    users = users.append_column("joined", pa.array([1_500_000_000 + n for n in range(count)]))
    users = users.append_column("last_seen", pa.array([4_000_000_000 + n for n in range(count)]))
    users = users.append_column("job", pa.array([n % 25 for n in range(count)]))
    users = users.append_column("age", pa.array([20 + n % 25 for n in range(count)]))
    users = users.append_column("likes", pa.array([("a|b", "b|c", "a|c")[n % 3] for n in range(count)]))
    pq.write_table(users, tmp_path / "source" / "users.parquet")
    assert init("--timezone", worlds.TIMEZONE) == 0
    assert written(tmp_path)["tables"]["user"]["time_columns"] == ["joined"]
    found = features(tmp_path)
    assert found["likes"] == {
        "feature_name": "likes",
        "feature_type": "id_feature",
        "expression": "user:likes",
        "separator": "|",
    }
    assert found["days_since_joined"]["feature_type"] == "raw_feature"
    assert (found["job"]["feature_type"], found["age"]["feature_type"]) == ("id_feature", "raw_feature")
    text = (tmp_path / "out" / "config.yaml").read_text(encoding="utf-8")
    assert "not a feature: user.last_seen: look-ahead: of 100% of the users it is later than their first event" in text


def test_init_finds_roles_days_and_events(sources, tmp_path):
    assert init("--timezone", worlds.TIMEZONE) == 0
    config = written(tmp_path)
    assert str(config["calendar"]["start"]) == worlds.START
    assert str(config["calendar"]["end"]) == worlds.END
    behavior = config["tables"]["behavior"]
    assert behavior["columns"] == {"event_time": "ts"}
    assert behavior["value_columns"] == ["price"]
    assert behavior["layout"] == "time_column"
    # buy has more rows than click here; the names say which is the narrower one.
    assert config["events"] == {"funnel": ["click", "buy"], "positive": ["click", "buy"]}
    # Of 12 days a quarter is left to evaluate.
    assert config["window"]["days"] == 9
    assert config["evaluation"]["k"] == [1, 2]  # a tenth of 20 items
    # 1 of 9 days is spared for the choice of epochs and prior.
    assert config["training"]["validation_days"] == 1
    assert config["model"]["prior"] is True
    assert config["model"]["output_dim"] == 16  # 8 of codes and 8 learned for 20 items
    assert features(tmp_path)["city"] == {
        "feature_name": "city",
        "feature_type": "id_feature",
        "expression": "user:city",
        "value_dim": 1,
    }


def test_every_setting_says_which_fact_chose_it(sources, tmp_path):
    assert init("--timezone", worlds.TIMEZONE) == 0
    text = (tmp_path / "out" / "config.yaml").read_text(encoding="utf-8")
    for section in ("window", "model", "training"):
        lines = text.split(f"\n{section}:\n")[1].split("\n\n")[0].splitlines()
        assert lines and all("    # " in line for line in lines)


def test_events_that_take_something_back_are_not_positive(sources, tmp_path):
    rows = worlds.log_rows(range(len(worlds.DAYS)))
    renamed = [{**row, "event": {"click": "cancel", "buy": "order"}[row["event"]]} for row in rows]
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", renamed)
    assert init("--timezone", worlds.TIMEZONE) == 0
    assert sorted(written(tmp_path)["events"]["funnel"]) == ["cancel", "order"]
    assert written(tmp_path)["events"]["positive"] == ["order"]


def test_init_recognises_csv_columns_with_unknown_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
        pcsv.write_csv(table, tmp_path / f"{name}.csv")
    assert init("--name", "mine", user="people.csv", item="things.csv", behavior="log.csv") == 0
    config = written(tmp_path)
    assert config["name"] == "mine"
    assert config["tables"]["user"]["columns"] == {"user_id": "no"}
    assert config["tables"]["item"]["columns"] == {"item_id": "code"}
    behavior = config["tables"]["behavior"]
    assert behavior["columns"] == {"user_id": "who", "item_id": "what", "event_time": "moment"}
    assert behavior["constant_event"] == "act"
    assert (behavior["value_columns"], behavior["context_columns"]) == (["amount"], ["channel"])
    assert "# not used: stars (integer, 5 distinct, e.g. 1, 2, 3)" in (tmp_path / "out" / "config.yaml").read_text()
    kinds = {name: feature["feature_type"] for name, feature in features(tmp_path).items()}
    assert (kinds["shelf"], kinds["item_weight"], kinds["request_channel"]) == ("id_feature", "raw_feature", "id_feature")


def write_log(path, time, days):
    rows = worlds.log_rows(range(days))
    zone = ZoneInfo(worlds.TIMEZONE)
    log = [{**row, "ts": time(dt.datetime.fromtimestamp(row["ts"] / 1000, zone))} for row in rows]
    if path.suffix == ".csv":
        pcsv.write_csv(pa.Table.from_pylist(log), path, pcsv.WriteOptions(delimiter=";"))
    else:
        path.write_text("".join(json.dumps({**row, "device": {"os": row["page"]}, "tags": ["a"]}) + "\n" for row in log))


def test_init_reads_json_lines(sources, tmp_path):
    write_log(tmp_path / "log.jsonl", lambda time: time.isoformat(), 12)
    assert init("--timezone", worlds.TIMEZONE, user=None, item=None, behavior="log.jsonl") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert (table["format"], table["columns"], "time_format" in table) == ("json", {"event_time": "ts"}, False)
    text = (tmp_path / "out" / "config.yaml").read_text(encoding="utf-8")
    assert "# not used: tags (list, 1 distinct, e.g. a); its values cannot be used" in text
    assert "# not used: device.os (text, 1 distinct, e.g. home); list it in" in text


@pytest.mark.parametrize(
    ("time_format", "days"), [("%d.%m.%Y %H:%M:%S", 12), ("%m/%d/%Y %I:%M:%S %p", 12)], ids=["day first", "month first"]
)
def test_init_recognises_the_order_of_day_and_month(sources, tmp_path, capsys, time_format, days):
    """The log's days are 1 to 12 January, so a row of the 13th tells the order."""
    later = dt.timedelta(days=1)
    write_log(tmp_path / "log.csv", lambda time: (time + later).strftime(time_format), days)
    assert init("--timezone", worlds.TIMEZONE, behavior="log.csv") == 0
    config = written(tmp_path)
    assert config["tables"]["behavior"]["time_format"] == time_format
    assert str(config["calendar"]["start"]) == worlds.DAYS[1]
    assert "matches its data" in capsys.readouterr().out


def test_init_reads_a_dump_without_header(tmp_path, monkeypatch, capsys):
    """User, time, rating, item, name of the item, with tabs and in Latin-1."""
    monkeypatch.chdir(tmp_path)
    time = dt.datetime(2012, 4, 3, 18, 0, 9)
    rows = [
        (
            n % 12,
            (time + dt.timedelta(hours=n)).strftime("%a %b %d %H:%M:%S +0000 %Y"),
            n % 5,
            f"v{n % 11}",
            f'Café "{n % 11}, old',
        )
        for n in range(400)
    ]
    (tmp_path / "checkins.txt").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="latin-1")
    assert init(user=None, item=None, behavior="checkins.txt") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert table["columns"] == {"user_id": "column_1", "event_time": "column_2", "item_id": "column_4"}
    assert table["column_names"] == [f"column_{place}" for place in range(1, 6)]
    assert (table["encoding"], table["time_format"]) == ("cp1252", "%a %b %d %H:%M:%S %z %Y")
    output = capsys.readouterr().out
    assert "has no header line: by their order, users are in column_1, items in column_4 and times in column_2;" in output
    assert "checkins.txt is not in UTF-8: read as cp1252" in output


def test_ids_that_do_not_come_back_are_no_users(tmp_path, monkeypatch, capsys):
    """Each basket has its own id and one day: no day has a user that an earlier one knows."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{n // 2},item {n % 11},2026-01-{1 + n // 20:02d}" for n in range(400)]
    (tmp_path / "log.csv").write_text("\n".join(["Transaction,Item,Date", *lines]), encoding="utf-8")
    assert init("--user-id", "Transaction", user=None, item=None, behavior="log.csv") == 1
    out = capsys.readouterr().out
    assert "Note: 0.0% of recent events are by ids in Transaction that have an earlier day: if they are orders" in out
    assert "column user_id: expected a day with a user and an item that the" in out and "Next:" not in out


def test_a_dump_of_events_and_rows_without_users(tmp_path, monkeypatch, capsys):
    """Number of the row, user (missing in a tenth), item, category, event, seconds; no header line."""
    monkeypatch.chdir(tmp_path)
    events = ["pv", "pv", "pv", "cart", "buy"]
    user = ["\\N" if n % 10 == 9 else n % 12 for n in range(600)]
    lines = [f"{n},{user[n]},{n % 11},{n % 11 % 2},{events[n % 5]},{1_511_544_070 + n * 3600}" for n in range(600)]
    (tmp_path / "UserBehavior.csv").write_text("\n".join(lines), encoding="utf-8")
    named = ("--user-id", "column_2", "--item-id", "column_3")
    assert init(*named, user=None, item=None, behavior="UserBehavior.csv") == 0
    config = written(tmp_path)
    table = config["tables"]["behavior"]
    columns = {"user_id": "column_2", "item_id": "column_3", "event": "column_5", "event_time": "column_6"}
    assert (table["columns"], table["incomplete_rows"]) == (columns, "drop")
    assert config["events"]["funnel"] == ["pv", "cart", "buy"]
    out = capsys.readouterr().out
    assert "Note: 60 of 600 rows have no column_2: they are left out." in out
    assert "540 rows from" in out


def test_ids_that_some_rows_lack_may_be_floats(tmp_path, monkeypatch, capsys):
    """As pandas writes the invoices of a shop whose guests have no number: 17000.0, or nothing; the second log has NA and hours of the day."""
    monkeypatch.chdir(tmp_path)
    user = [f"{17_000 + n % 12}.0" if n % 10 else "" for n in range(600)]
    lines = [f"{user[n]},A{n % 11},2026-01-{1 + n // 30:02d} 10:00" for n in range(600)]
    (tmp_path / "log.csv").write_text("\n".join(["CustomerID,StockCode,InvoiceDate", *lines]), encoding="utf-8")
    assert init(user=None, item=None, behavior="log.csv") == 0
    assert written(tmp_path)["tables"]["behavior"]["incomplete_rows"] == "drop"
    assert "recall --user-id 17001 " in capsys.readouterr().out
    lines = [f"{user[n] or 'NA'},A{n % 11},2026-01-{1 + n // 30:02d},{n % 24}" for n in range(600)]
    (tmp_path / "log.csv").write_text("\n".join(["CustomerID,StockCode,date,hour", *lines]), encoding="utf-8")
    assert init("--force", user=None, item=None, behavior="log.csv") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert (table["incomplete_rows"], table["clock_column"], table["time_format"]) == ("drop", "hour", "%Y-%m-%d %H")
    out = capsys.readouterr().out
    assert "Note: rows have NA in place of CustomerID: they are left out." in out and "540 rows from" in out


def test_a_log_without_times_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ratings.csv").write_bytes(b'"User-ID";"ISBN";"Book-Rating"\r\n"1";"034545104X";"0"\r\n')
    assert init(user=None, item=None, behavior="ratings.csv") == 1
    err = capsys.readouterr().err
    assert "got Book-Rating: integer" in err and "docs/platform.md says how to give days to a log without times" in err


def test_columns_that_follow_from_the_item_are_no_contexts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{n % 13},{n % 11},2026-01-{1 + n // 20:02d},{'ab'[n % 11 > 4]},{'xyz'[n % 3]}" for n in range(400)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time,category,device", *lines]), encoding="utf-8")
    assert init(user=None, item=None, behavior="log.csv") == 0
    assert written(tmp_path)["tables"]["behavior"]["context_columns"] == ["device"]
    text = (tmp_path / "out" / "config.yaml").read_text(encoding="utf-8")
    assert "# not used: category (text, 2 distinct, e.g. a, b); it follows from the item, so no request knows it" in text


@pytest.mark.parametrize(
    ("items", "ks"),
    [(9, [1]), (94, [1, 2, 5, 10]), (167, [2, 5, 10, 20]), (1599, [10, 20, 50, 100]), (1682, [10, 50, 100, 200])],
)
def test_lists_of_a_small_corpus_are_short(items, ks):
    assert choose_cut_offs(items) == ks


@pytest.mark.parametrize(
    ("date", "clock", "time_format"),
    [
        ("%Y-%m-%d", "%H:%M:%S", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%d 00:00:00", "%H:%M", "%Y-%m-%d %H:%M"),
        ("%d-%m-%Y", "%H:%M", "%d-%m-%Y %H:%M"),
    ],
)
def test_init_reads_date_and_time_of_day_together(tmp_path, monkeypatch, date, clock, time_format):
    monkeypatch.chdir(tmp_path)
    times = [dt.datetime(2016, 10, 30, 9, 58, 11) + dt.timedelta(hours=n) for n in range(400)]
    lines = [f"{n % 12},{n % 11},{time:{date}},{time:{clock}}" for n, time in enumerate(times)]
    (tmp_path / "log.csv").write_text("\n".join(["member,Item,Date,Time", *lines]), encoding="utf-8")
    assert init(user=None, item=None, behavior="log.csv") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert (table["columns"]["event_time"], table["clock_column"], table["time_format"]) == ("Date", "Time", time_format)
    assert "context_columns" not in table


def test_init_reads_columns_of_times_of_day_in_parquet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    times = [dt.datetime(2016, 10, 30, 9, 58, 11) + dt.timedelta(hours=n) for n in range(400)]
    columns = {"member": [n % 12 for n in range(400)], "Item": [n % 11 for n in range(400)]}
    columns |= {"Date": [time.date() for time in times], "Time": [time.time() for time in times]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert init(user=None, item=None, behavior="log.parquet") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert (table["clock_column"], table["time_format"]) == ("Time", "%Y-%m-%d %H:%M:%S.%f")


def test_init_reads_columns_of_a_german_shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["Bestellnr;Kunde;Artikelnummer;Bestelldatum;Menge;Einzelpreis"]
    lines += [
        f"B{n};{n % 7};A-{n % 11};{1 + n % 20:02d}.11.2025 {8 + n % 12}:{n % 60:02d};{n % 3};{n % 9},{n % 10}5"
        for n in range(400)
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines), encoding="utf-8")
    assert init(user=None, item=None, behavior="log.csv") == 0
    table = written(tmp_path)["tables"]["behavior"]
    assert table["columns"] == {"user_id": "Kunde", "item_id": "Artikelnummer", "event_time": "Bestelldatum"}
    assert (table["time_format"], table["decimal_mark"]) == ("%d.%m.%Y %H:%M", ",")
    assert table["value_columns"] == ["Einzelpreis"]


@pytest.mark.parametrize("names", [["_delta_log/0.json", "_delta_log/1.json"], ["schema.json", "meta.json"]])
def test_json_next_to_a_table_is_no_part_of_it(sources, tmp_path, names):
    (tmp_path / "log").mkdir()
    (sources / "behavior.parquet").rename(tmp_path / "log" / "part-0.parquet")
    for name in names:
        path = tmp_path / "log" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"commitInfo": {}}\n')
    assert init("--timezone", worlds.TIMEZONE, behavior="log") == 0
    assert written(tmp_path)["tables"]["behavior"]["format"] == "parquet"


def test_numbers_with_a_comma_set_the_decimal_mark_of_csv_alone(sources, tmp_path):
    rows = worlds.item_rows()
    prices = [f"{n},5" for n in range(len(rows))]
    first_line = pa.table({"note": [";\n"] * len(rows), "price": prices})
    for column in (table := pa.Table.from_pylist(rows)).column_names:
        first_line = first_line.append_column(column, table[column])
    pq.write_table(first_line, tmp_path / "items.parquet")
    assert init("--timezone", worlds.TIMEZONE, item="items.parquet") == 0
    assert "decimal_mark" not in written(tmp_path)["tables"]["item"]


def test_lists_of_items_become_features(sources, tmp_path):
    rows = [
        {**row, "tags": [f"t{n % 3}", "all"], "more": {"kind": f"k{n % 4}"}, "parts": [{"n": 1}]}
        for n, row in enumerate(worlds.item_rows())
    ]
    (tmp_path / "items.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert init("--timezone", worlds.TIMEZONE, item="items.ndjson") == 0
    assert features(tmp_path)["tags"] == {"feature_name": "tags", "feature_type": "id_feature", "expression": "item:tags"}
    assert features(tmp_path)["more.kind"]["expression"] == "item:more.kind"
    assert "# not a feature: item.parts: nested" in (tmp_path / "out" / "config.yaml").read_text()
    workspace = worlds.build_all(load_config(tmp_path / "out" / "config.yaml", tmp_path / "out"))
    stored = workspace.tables.read(workspace.need("item_features_fg", worlds.DAYS[0]))
    first, second = stored.column("tags").to_pylist()[:2]  # hashes of t0, all and of t1, all
    assert (len(first), len(second), len({*first, *second})) == (2, 2, 3)


def test_init_finds_ids_in_objects(sources, tmp_path):
    rows = worlds.log_rows(range(12))
    lines = [{"user": {"id": row["user_id"]}, "item": {"id": row["item_id"]}, "context": {"ts": row["ts"]}} for row in rows]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert init("--timezone", worlds.TIMEZONE, user=None, item=None, behavior="log.jsonl") == 0
    columns = {"user_id": "user.id", "item_id": "item.id", "event_time": "context.ts"}
    assert written(tmp_path)["tables"]["behavior"]["columns"] == columns


def test_init_asks_for_the_format_where_the_order_of_day_and_month_is_not_known(sources, tmp_path, capsys):
    write_log(tmp_path / "log.csv", lambda time: time.strftime("%d.%m.%Y %H:%M:%S"), 12)
    assert init("--timezone", worlds.TIMEZONE, behavior="log.csv") == 1
    message = capsys.readouterr().err
    assert "column ts: expected times with a day above 12, which tells days from months" in message
    assert "To fix: name the format, such as --time-format '%d.%m.%Y %H:%M:%S'" in message
    assert init("--timezone", worlds.TIMEZONE, "--time-format", "%d.%m", behavior="log.csv") == 1
    assert "--time-format: expected a format of times, got expected a day" in capsys.readouterr().err
    assert init("--timezone", worlds.TIMEZONE, "--time-format", "%d.%m.%Y %H:%M:%S", behavior="log.csv") == 0
    assert str(written(tmp_path)["calendar"]["end"]) == worlds.END


def test_times_of_users_in_a_format_become_features(sources, tmp_path):
    count, known = 40, pq.read_table(tmp_path / "source" / "users.parquet").column("user_id").to_pylist()
    ids = [*known, *(f"x{n}" for n in range(count - len(known)))]
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=17 * n) for n in range(count)]
    columns = {"joined": "%d.%m.%Y", "seen": "%m/%d/%Y", "born": "%Y%m%d"}
    texts = {name: [day.strftime(time_format) for day in days] for name, time_format in columns.items()}
    pq.write_table(pa.table({"user_id": ids} | texts), tmp_path / "source" / "users.parquet")
    assert init("--timezone", worlds.TIMEZONE) == 0
    table = written(tmp_path)["tables"]["user"]
    assert (table["time_format"], table["time_columns"]) == ("%d.%m.%Y", ["joined"])
    assert features(tmp_path)["days_since_joined"]["feature_type"] == "raw_feature"
    assert "seen" not in features(tmp_path)


def test_init_recognises_day_folders_and_empty_days(sources, tmp_path):
    for day in (0, 1, 3):
        worlds.write_rows(tmp_path / "log" / f"ds={worlds.DAYS[day]}" / "part.parquet", worlds.log_rows([day]))
    init("--timezone", worlds.TIMEZONE, behavior="log")
    behavior = written(tmp_path)["tables"]["behavior"]
    assert behavior["layout"] == "ds_folders"
    assert behavior["allow_empty_days"] is True
    assert str(written(tmp_path)["calendar"]["end"]) == worlds.DAYS[3]


def test_init_names_the_option_for_a_role_that_it_cannot_guess(sources, tmp_path, capsys):
    pq.write_table(pa.table({"user_id": ["zz"], "item_id": ["a_00"], "n": [1]}), tmp_path / "log.parquet")
    assert init(behavior="log.parquet") == 1
    complaint = capsys.readouterr().err
    assert "name it with --user-id" in complaint
    assert "name it with --event-time" in complaint
    assert not (tmp_path / "out").exists()


def test_given_columns_override_guesses_and_must_exist(sources, tmp_path, capsys):
    assert init("--event-time", "when", "--timezone", worlds.TIMEZONE) == 1
    assert (
        "--event-time: expected a column of the log: event, item_id, page, price, ts, user_id, got 'when'"
        in capsys.readouterr().err
    )
    assert init("--user-id", "who", "--timezone", worlds.TIMEZONE, user=None) == 1
    assert capsys.readouterr().err.strip().splitlines() == [
        "ConfigError: --user-id: expected a column of the log: event, item_id, page, price, ts, user_id, got 'who'. To fix: correct its spelling"
    ]
    assert init("--event", "page", "--timezone", worlds.TIMEZONE) == 0
    assert written(tmp_path)["events"]["funnel"] == ["home"]


def test_init_keeps_existing_files_without_force(sources, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("mine")
    assert init("--timezone", worlds.TIMEZONE) == 1
    assert "choose another --out, or pass --force" in capsys.readouterr().err
    assert (tmp_path / "out" / "config.yaml").read_text() == "mine"
    assert init("--timezone", worlds.TIMEZONE, "--force") == 0


def test_init_refuses_a_log_of_one_day(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    worlds.write_sources(tmp_path)
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", worlds.log_rows([4]))
    assert init("--timezone", worlds.TIMEZONE) == 1
    assert "expected rows of at least two days: one to learn from and one to score" in capsys.readouterr().err


def test_init_refuses_a_missing_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    worlds.write_sources(tmp_path)
    assert init(user="source/missing.parquet") == 1
    assert "expected a file or folder, got no such file or folder" in capsys.readouterr().err
