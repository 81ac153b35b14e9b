"""Reading from Python: tables, the model of a day, and lists of the bundle; imports stay light."""

import datetime as dt
import doctest
import subprocess
import sys

import numpy as np
import pytest

import dssm_assets
from dssm_assets import stored
from dssm_assets.cli import main
from dssm_assets.core.errors import ConfigError, InputError, PartitionMissingError
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Returns the arguments that name the built world."""
    loaded = worlds.built_world(tmp_path_factory).loaded
    return {"config": loaded.path, "home": loaded.home}


def test_a_table_is_opened_by_its_name_and_day(where):
    table = dssm_assets.open_table("user_table", dt.date.fromisoformat(DAYS[0]), **where)
    assert (table.day, list(table.columns)) == (DAYS[0], ["user_id", "city"])
    assert sorted(table.to_pandas().user_id) == sorted(set(worlds.users()) - {worlds.NO_PROFILE})
    assert table.to_arrow(["city"]).column_names == ["city"]
    named = [dssm_assets.open_table("user_table", day, **where).day for day in ("first", "latest", "latest-3", DAYS[2])]
    assert named == [DAYS[0], DAYS[-1], DAYS[-4], DAYS[2]]


def test_rates_are_the_cells_of_total_hit_rate(where):
    table = dssm_assets.open_table("total_hit_rate", **where).to_pandas()
    cells = table[(table.scope == "all") & (table.population == "warm")]
    rates = dssm_assets.rates(**where)
    assert list(rates.index) == list(cells.scorer.unique())
    assert [rates.loc[row.scorer, row.k] for row in cells.itertuples()] == list(cells.hit_rate)
    with pytest.raises(InputError, match=r"one of: all all, all warm.*got nobody warm"):
        dssm_assets.rates(scope="nobody", **where)


def test_what_is_not_stored_or_no_table_is_refused(where):
    with pytest.raises(PartitionMissingError, match="sampel"):
        dssm_assets.open_table("sampel", **where)
    with pytest.raises(PartitionMissingError, match=f"total_hit_rate.*{DAYS[0]}"):
        dssm_assets.open_table("total_hit_rate", DAYS[0], **where)
    with pytest.raises(
        PartitionMissingError, match=f"day latest-1: expected a stored day, got {DAYS[-2]}. To fix: name one of {DAYS[-1]}$"
    ):
        dssm_assets.rates("latest-1", **where)
    with pytest.raises(InputError, match="argument day: expected a date, YYYY-MM-DD, first, latest or latest-N, got 'last'"):
        dssm_assets.load_model("last", **where)
    with pytest.raises(InputError, match="open the model with load_model"):
        dssm_assets.open_table("dssm_model", **where)
    with pytest.raises(InputError, match="argument name, train_samples: expected a table, got an artifact"):
        dssm_assets.open_table("train_samples", **where)  # its columns are those of six files
    with pytest.raises(ConfigError, match="one of: tiny, got 'shop'"):
        dssm_assets.open_table("sample", scene="shop", **where)


def test_polars_is_optional_and_the_error_names_its_package(where, monkeypatch):
    table = dssm_assets.open_table("user_table", **where)
    monkeypatch.setitem(sys.modules, "polars", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"pip install 'dssm-assets\[polars\]'"):
        table.to_polars()


def test_polars_has_the_same_rows(where):
    pytest.importorskip("polars")
    table = dssm_assets.open_table("user_table", **where)
    assert table.to_polars().to_dicts() == table.to_arrow().to_pylist()


def test_a_model_ranks_the_items_of_its_day(where):
    model = dssm_assets.load_model(**where)
    assert model.day == EVALUATION_DAY
    found = model.top_items(["b1", "a0", "b1", "nobody"], k=10).to_pandas()
    # Users buy items of their own group of 10 alone, and the towers have learned that (test_tiny_world).
    assert found.groupby("user_id").item_id.apply(set).to_dict() == {
        user: {f"{user[0]}_{number:02d}" for number in range(10)} for user in ("a0", "b1")
    }
    items = dssm_assets.open_table("item_vectors", **where).to_pandas().set_index("item_id").item_tower_emb
    users = dssm_assets.open_table("user_vectors", **where).to_pandas().set_index("user_id").user_tower_emb
    expected = [np.dot(users[row.user_id], items[row.item_id]) for row in found.itertuples()]
    np.testing.assert_allclose(found.score, expected, rtol=1e-5)
    assert all((np.diff(one.score) <= 0).all() for _, one in found.groupby("user_id"))
    with pytest.raises(InputError, match="at least 1, got 0"):
        model.top_items(["a0"], k=0)


def test_the_towers_of_a_model_are_its_weights(where):
    towers = dssm_assets.load_model(**where).towers
    assert towers.spec.output_dim == 8


def test_recall_answers_from_the_published_bundle(tmp_path_factory, tmp_path, monkeypatch):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "published", {"serving": {"filters": ["category"]}})
    where = {"config": loaded.path, "home": loaded.home}
    worlds.run_steps(loaded, worlds.PUBLISHED, [EVALUATION_DAY])
    answer = dssm_assets.recall("a0", k=10, channels="vectors", **where)
    assert set(answer.item_ids) == {f"a_{number:02d}" for number in range(10)}
    assert answer.bundle_id.startswith(EVALUATION_DAY)
    added = dssm_assets.recall("a0", events={"item_ids": ["b_03"], "event_times_ms": [1_705_017_600_000]}, k=20, **where)
    assert (added.source, added.replaced, len(added.item_ids)) == ("features", (), 20)
    assert "own_history" in added.sources[added.item_ids.index("b_03")]
    # The calendar starts on 2024-01-01.
    seconds = (
        r"unix milliseconds from 2021-12-31 to .*, got 1705017600, which is 1970-01-20 17:36:57; as seconds it is 2024-01-12"
    )
    with pytest.raises(InputError, match=seconds):
        dssm_assets.recall("a0", events={"item_ids": ["b_03"], "event_times_ms": [1_705_017_600]}, **where)
    assert dssm_assets.recall("a0", history={"item_ids": ["b_03"]}, **where).replaced == ("history",)
    assert dssm_assets.recall("a0", filters={"category": "NOPE"}, **where).item_ids == []
    assert dssm_assets.recall("a0", k=2, fields=["category"], **where).fields == {"category": ["cat_a"] * 2}
    with pytest.raises(InputError, match="a user or an item, got neither"):
        dssm_assets.recall(**where)
    with pytest.raises(InputError, match="one of: merged, vectors, got 'best'"):
        dssm_assets.recall("a0", channels="best", **where)
    monkeypatch.setenv("DSSM_CONFIG", str(loaded.path))
    monkeypatch.setenv("DSSM_HOME", str(loaded.home))
    examples = doctest.testmod(stored)
    assert (examples.failed, examples.attempted) == (0, 6), "examples of docstrings"


def test_importing_the_package_and_its_reading_calls_loads_neither_dagster_nor_torch():
    code = (
        "import sys, dssm_assets; print([name for name in ('dagster', 'torch', 'pyarrow') if name in sys.modules]); "
        "dssm_assets.open_table; print([name for name in ('dagster', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
    assert {"DssmRecall", "load_model", "open_table", "recall"} <= set(dir(dssm_assets))
    with pytest.raises(AttributeError, match="has no attribute 'open_tabel'"):
        _ = dssm_assets.open_tabel


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("dssm-assets ")
