"""`dssm-assets evaluate` on files: what it prints, writes and refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from dssm_assets.commands.command_groups import Commands
from dssm_assets.core.errors import InputError, PartitionMissingError, SchemaError
from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS, USER_VECTORS
from dssm_assets.extras.external_vectors import command as evaluate
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two users, three items; u's list by inner product is a, c, b; v has no vector and w no truth."""
    lists = pa.list_(pa.float32())
    tables = {
        "users": pa.table({"user_id": ["u", "w"], "user_tower_emb": pa.array([[1, 0], [0, 1]], lists)}),
        "items": pa.table({"item_id": ["a", "b", "c"], "item_tower_emb": pa.array([[1, 0], [0, 1], [1, 1]], lists)}),
        "truth": pa.table({"user_id": ["u", "u", "u", "v"], "item_id": ["c", "c", "zzz", "a"]}),
        "seen": pa.table({"user_id": ["u"], "item_id": ["a"]}),
    }
    paths = {name: str(tmp_path / f"{name}.parquet") for name in tables}
    for name, table in tables.items():
        pq.write_table(table, paths[name])
    return paths


def run(files: dict[str, str], *more: str) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_command(Commands(parser))
    names = ["--user-vectors", files["users"], "--item-vectors", files["items"], "--truth", files["truth"]]
    parsed = parser.parse_args(["evaluate", *names, *more])
    return int(parsed.command(parsed))


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    said = capsys.readouterr()
    assert said.err == ""
    return dict(json.loads(said.out))


def test_json_output_is_one_object(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, "-k", "2,1", "--json", "--bootstrap", "50") == 0
    found = answer(capsys)
    assert {name: found[name] for name in ("metric", "bootstrap", "seed")} == {"metric": "ip", "bootstrap": 50, "seed": 17}
    first, second = found["results"]
    assert (first["k"], first["hits"], first["hit_rate"]) == (1, 0, 0)
    assert (second["k"], second["hits"], second["truth_count"], second["users"]) == (2, 1, 3, 2)
    assert second["hit_rate"] == pytest.approx(1 / 3)
    assert (second["user_recall"], second["user_hit_rate"]) == (0.25, 0.5)
    # u has c second and zzz missed, v nothing: (1 / log2(3)) / (1 + 1 / log2(3)) / 2 = .63093 / 1.63093 / 2.
    assert second["ndcg"] == pytest.approx(0.63093 / 1.63093 / 2, abs=1e-5)
    assert second["ndcg_ci_low"] <= second["ndcg"] <= second["ndcg_ci_high"]
    assert second["ci_low"] <= second["hit_rate"] <= second["ci_high"]
    who = found["who"]
    assert (who["users_without_vector"], who["users_without_truth"], who["truth_rows_repeated"]) == (1, 1, 1)
    assert (who["truth_pairs_outside_corpus"], who["corpus_items"], who["scope"]) == (1, 3, "all")


def test_vectors_are_found_by_name_or_type(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert [pq.read_schema(files[name]).names for name in ("users", "items")] == [
        [column.name for column in spec.columns] for spec in (USER_VECTORS, ITEM_VECTORS)
    ], "stored tables are evaluated as they are"
    expected = run(files, "--json"), answer(capsys)
    users, more = pq.read_table(files["users"]), pa.array([[7], [8]])
    pq.write_table(users.append_column("history", more), files["users"])
    assert (run(files, "--json"), answer(capsys)) == expected
    renamed = users.rename_columns(["user_id", "vector"])
    pq.write_table(renamed.append_column("city", pa.array(["x", "y"])), files["users"])
    assert (run(files, "--json"), answer(capsys)) == expected
    pq.write_table(renamed.append_column("history", more), files["users"])
    with pytest.raises(SchemaError, match=r"column user_tower_emb: .* got columns user_id, vector, history\. To fix"):
        run(files)


def test_filters_leave_what_may_be_shown(files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shop = str(tmp_path / "shop.parquet")
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], "price": [1.0, 2.0, 3.0]}), shop)
    assert run(files, "-k", "1", "--json", "--items", shop, "--filters", '{"price": {"min": 2}}') == 0
    found = answer(capsys)
    # Candidates are b and c, so c comes first for u; zzz, which the shop lacks, and v's a are not to be found.
    assert (found["results"][0]["hits"], found["results"][0]["truth_count"], found["results"][0]["users"]) == (1, 1, 1)
    assert (found["who"]["corpus_items"], found["who"]["truth_rows_repeated"]) == (2, 1)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ('{"price": "x"}', r"filters\.price: expected double, the column's type, got 'x'"),
        ('{"size": 1}', r"filters\.size: expected a column for filters"),
        ('{"price": 99}', "no item passes"),
        (None, "give both, or neither"),
    ],
)
def test_bad_filters_are_refused(files: dict[str, str], tmp_path: Path, filters: str | None, message: str) -> None:
    shop = str(tmp_path / "shop.parquet")
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], "price": [1.0, 2.0, 3.0]}), shop)
    with pytest.raises(InputError, match=message):
        run(files, "--items", shop, *([] if filters is None else ["--filters", filters]))


def test_with_a_day_the_lists_of_the_home_stand_beside(
    world: worlds.BuiltWorld, files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The stored vectors and truth of the day, as they are, of 4 of its 12 users: they are the row of the model, which finds all."""
    tables = world.workspace.tables

    def read(name: str) -> pa.Table:
        return tables.read(world.workspace.need(name, EVALUATION_DAY))

    truth, counts = read("ground_truth"), read("hit_counts").to_pandas()
    some = truth.filter(pc.starts_with(truth.column("user_id"), "b"))
    stored = {"users": read("user_vectors"), "items": read("item_vectors"), "truth": some}
    paths = {name: str(tmp_path / f"{name}.parquet") for name in stored}
    for name, table in stored.items():
        pq.write_table(table, paths[name])
    home = ["-k", "1,5,10", "--day", "latest", "--config", str(world.loaded.path), "--home", str(world.loaded.home)]
    assert run(paths, "--json", *home) == 0
    found = json.loads(capsys.readouterr().out)["home"]
    rows = {row["scorer"]: row for row in found["results"] if row["k"] == 10}
    counts = counts[(counts.scope == "all") & (counts.population == "all") & counts.user_id.str.startswith("b")]
    sums = counts.groupby("scorer").hits_10.sum()
    assert found["day"] == EVALUATION_DAY and {"merged", "model", "popularity", "own_history_all"} <= set(rows)
    assert {name: (row["hits"], row["users"]) for name, row in rows.items()} == {name: (sums[name], 4) for name in rows}
    assert rows["model"]["hit_rate"] == 1 > rows["popularity"]["hit_rate"]
    assert run(paths, *home) == 0
    out = capsys.readouterr().out
    table = {line.split()[0]: line.split() for line in out.partition("hit_rate@k on")[2].splitlines() if line.strip()}
    assert table["@5"] == ["@5", "@10", "95%", "interval"], "the cut-offs that both have"
    assert table["your"][-2:] == ["1.000", "1.000-1.000"] and table["two-tower"][-1] == "1.000"
    assert f"{EVALUATION_DAY}, 4 users; scope all" in out
    user = some.column("user_id")[0].as_py()
    pq.write_table(some.slice(0, 1).append_column("item_id", pa.array(["elsewhere"])), paths["truth"])
    with pytest.raises(InputError, match=rf"as many items to find as on {EVALUATION_DAY} in the home.*1 of 1 .*: {user}"):
        run(paths, *home)
    pq.write_table(some, paths["truth"])
    detail = tmp_path / "detail.parquet"  # is not written: what is wrong with the home is told before hours of evaluation
    with pytest.raises(InputError, match="-k: expected a cut-off of the home: 5, 10, got 1"):
        run(paths, "-k", "1", "--detail", str(detail), *home[2:])
    with pytest.raises(PartitionMissingError, match="expected an evaluated day"):
        run(paths, "--detail", str(detail), *home[:3], DAYS[10], *home[4:])
    assert not detail.exists()
    sampled = world.copy(tmp_path / "sampled", {"evaluation": {"max_users": 6}})
    with pytest.raises(InputError, match=r"only of users in hit_counts, a sample of evaluation\.max_users; or leave out --day"):
        pq.write_table(truth.slice(0, 1).append_column("item_id", pa.array(["elsewhere"])), paths["truth"])
        run(paths, *home[:5], str(sampled.path), "--home", str(sampled.home))
    pq.write_table(some, paths["truth"])
    assert run(files) == 0
    assert "Give --day, the day of the truth, to see a home's baselines" in capsys.readouterr().out


def test_lists_of_truth_are_read_and_must_be_lists(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    expected = run(files, "--json"), answer(capsys)
    listed = pa.table({"user_id": ["u", "w", "v"], "gt_items": [["c", "c", "zzz"], [], ["a"]]})
    pq.write_table(listed, files["truth"])
    assert (run(files, "--json"), answer(capsys)) == expected
    pq.write_table(listed.set_column(1, "gt_items", pa.array(["c,zzz", "", "a"])), files["truth"])
    with pytest.raises(SchemaError, match="truth, column gt_items: expected lists of ids, got string"):
        run(files)


def test_seen_items_are_not_candidates(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, "-k", "1", "--json", "--exclude", files["seen"]) == 0
    found = answer(capsys)
    assert (found["results"][0]["hits"], found["who"]["scope"]) == (1, "discovery")  # without a, c comes first


@pytest.mark.parametrize(("metric", "best"), [("ip", "a"), ("cosine", "a"), ("l2", "a")])
def test_the_printed_table_has_every_figure(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, metric: str, best: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run(files, "-k", "1,2,200", "--metric", metric, "--exclude", files["seen"]) == 0
    out = capsys.readouterr().out
    for word in (
        "hit_rate",
        "95% interval",
        "user_recall",
        "user_hit_rate",
        "NDCG",
        "hits",
        "truth",
        "Users counted: 2, over 3 items",
    ):
        assert word in out
    assert out.strip().splitlines()[0].split()[-2:] == ["hits", "truth"]
    assert "all their truth is missed: 1 (v)" in out
    assert "Not counted: 1 users without truth; 1 repeated rows of truth." in out
    assert "0 pairs seen before, 0 users without other pairs" in out


def test_detail_files_are_written(files: dict[str, str], tmp_path: Path) -> None:
    detail, reference, total = (tmp_path / name for name in ("detail.parquet", "reference.parquet", "total.csv"))
    outputs = ["--detail", str(detail), "--reference-detail", str(reference), "--reference-total", str(total)]
    assert run(files, "-k", "2", "--metric", "l2", *outputs) == 0
    u, v = pq.read_table(detail).to_pylist()
    assert (u["user_id"], u["topk_ids"], u["topk_scores"], u["hit_ids"], u["bad_ids"]) == (
        "u",
        ["a", "c"],
        [0, -1],
        ["c"],
        ["a"],
    )
    assert (v["topk_ids"], v["hits"], v["truth_count"]) == ([], 0, 1)
    names = ["id", "topk_ids", "topk_dists", "hitrate", "bad_ids", "bad_dists"]
    table = pq.read_table(reference)
    assert table.column_names == names
    assert [list(row.values()) for row in table.to_pylist()] == [["u", "a,c", "0,1", 0.5, "a", "0"], ["v", "", "", 0, "", ""]]
    assert pcsv.read_csv(total).to_pydict() == {"hitrate": [pytest.approx(1 / 3)]}


def test_a_file_that_is_not_there_and_outputs_of_another_kind_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        run({**files, "truth": str(tmp_path / "none.parquet")})
    with pytest.raises(InputError, match=r"output detail\.csv"):
        run(files, "--detail", "detail.csv")


def test_files_that_do_not_fit_leave_nothing_behind(files: dict[str, str], tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), files["truth"])
    with pytest.raises(InputError, match="2 faults"):
        run(files, "--detail", str(tmp_path / "detail.parquet"))
    assert not (tmp_path / "detail.parquet").exists()


@pytest.mark.parametrize("wrong", [["-k", "0"], ["-k", "ten"], ["--bootstrap", "0"], ["--seed", "-1"], ["--metric", "dot"]])
def test_wrong_usage_ends_with_status_two(files: dict[str, str], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(files, *wrong)
    assert ended.value.code == 2
