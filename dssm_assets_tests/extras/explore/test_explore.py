"""The page about single people: its numbers are those of the tables, and every view shows without an error."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest
import yaml
from streamlit import cache_data, cache_resource
from streamlit.testing.v1 import AppTest

from dssm_assets.core.errors import ConfigError, InputError
from dssm_assets.core.evaluation.evaluation_tables import GROUND_TRUTH, MERGED, MODEL
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.extras.explore import explored_day
from dssm_assets.extras.explore.command import PAGE
from dssm_assets.extras.explore.explored_day import ExploredDay, Miss, order_segments
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine
from dssm_assets.steps import people
from dssm_assets.steps.workspace import days_between, open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import test_online_retail, worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

forget = pytest.importorskip("dssm_assets.extras.retention.forget").forget
forgetting = pytest.importorskip("dssm_assets_tests.extras.retention.forgetting")
CHANGES = {"window": {"days": test_online_retail.WINDOW - 1}, "gate": {"baseline_margin": -1}}
TABLES = ("hit_rate_detail", "ground_truth", "hit_counts")
VIEWS = ["A person", "Two lists", "A session", "An item", "The day"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A copy of a world with ids of several scripts and a bundle, evaluated with lists shorter than what people take."""
    folder = tmp_path_factory.mktemp("explored") / "world"
    shutil.copytree(forgetting.built_world(tmp_path_factory), folder, symlinks=True)
    changes = {"evaluation": {"k": [1, 2], "segments": [{"name": "activity", "by": "activity", "edges": [18, 19]}]}}
    loaded = worlds.write_config(folder, worlds.merged(forgetting.OWN, changes))
    worlds.run_steps(loaded, ["hit_counts", "hit_rate_detail", "total_hit_rate"], [EVALUATION_DAY])
    return open_workspace(loaded)


@pytest.fixture(scope="module")
def day(workspace):
    return open_fitted(workspace)


def open_fitted(workspace, ds=EVALUATION_DAY):
    day = ExploredDay(workspace, ds)
    day.fit()
    return day


@pytest.fixture
def open_page(monkeypatch):
    """Returns a function that shows the page of a home, with parts of its address."""

    def show(loaded, view="A person", **address):
        cache_data.clear()
        cache_resource.clear()
        monkeypatch.setattr("sys.argv", ["page.py", f"--config={loaded.path}", f"--home={loaded.home}"])
        page = AppTest.from_file(str(PAGE), default_timeout=60)
        for key, value in {"view": view, **address}.items():
            page.query_params[key] = value
        return page.run()

    return show


def texts(page):
    """Returns all sentences that a page shows. It must have shown no traceback."""
    assert not page.exception
    kinds = (page.info, page.error, page.markdown, page.caption, page.subheader)
    return "\n".join(str(one.value) for kind in kinds for one in kind)


def recount(workspace, day):
    """Counts again, from the tables alone, what the page says of all people; returns how many these are."""
    read = {name: workspace.tables.read(workspace.need(name, day.ds)).to_pylist() for name in TABLES}
    detail, truth = ({row["user_id"]: row for row in read[name]} for name in ("hit_rate_detail", "ground_truth"))
    hits = {}
    for row in read["hit_counts"]:
        if (row["scope"], row["population"]) == ("all", "all"):
            hits.setdefault(row["user_id"], {})[row["scorer"]] = row[f"hits_{day.k}"]
    assert set(day.people["user_id"]) == set(hits)
    for user, counted in hits.items():
        person, took = day.person(user), truth[user]["gt_items"]
        assert person.taken["item_id"].tolist() == took
        assert person.lists[MODEL]["item_id"].tolist()[: day.k] == detail[user]["topk_ids"]
        assert person.hits == counted
        for name, found in person.lists.items():
            items = found["item_id"].tolist()
            assert found["is_taken"].tolist() == [item in took for item in items]
            assert len(set(items[: day.k]) & set(took)) == counted[name]
            assert person.taken[name].tolist() == [items.index(item) + 1 if item in items else 0 for item in took]
        served, best = (counted[name] for name in (day.served, day.baseline))
        assert (person.taken["miss"] == "").sum() == served
        words = (
            f"{served} of {len(took)} found by the {display_name(day.served)}; {display_name(day.baseline)} would find {best}."
        )
        assert person.found.describe() == words
    return len(hits)


def test_ranks_and_hits_of_each_person_are_those_of_the_tables(workspace, day):
    assert recount(workspace, day) == len(worlds.users())


@pytest.fixture(scope="module")
def retail(tmp_path_factory):
    """Returns eight days of real purchases, the last two evaluated, the last one published."""
    folder, config = tmp_path_factory.mktemp("retail"), worlds.merged(test_online_retail.CONFIG, CHANGES)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    loaded = load_config(folder / "config.yaml", folder / "home")
    days = days_between(test_online_retail.FIRST, test_online_retail.EVALUATED)
    worlds.run_steps(loaded, worlds.DAILY, days)
    worlds.run_steps(loaded, worlds.WINDOWED, days[-2:])
    worlds.run_steps(loaded, worlds.PUBLISHED, days[-1:])
    return open_workspace(loaded)


@pytest.mark.slow
def test_people_of_a_real_log_are_as_in_the_tables_and_as_the_engine_answers(retail, open_page):
    days = [open_fitted(retail, ds) for ds in retail.tables.partitions.days("total_hit_rate")]
    assert sum(recount(retail, day) for day in days) >= 50
    bundles = open_bundles(retail.loaded)
    engine, second = RecallEngine.open(bundles), {"second source": f"bundle {bundles.current_id()}", "second list": MERGED}
    for day in days:
        page = open_page(retail.loaded, "Two lists", day=day.ds, **second)
        for user in day.people["user_id"]:
            page.sidebar.text_input(key="user").set_value(str(user)).run()
            assert f"got {user}, who" not in texts(page)
            answer = engine.recall_for_user(user, ListOptions(200, lists=Lists.MERGED))
            assert page.dataframe[1].value["item_id"].tolist() == answer.item_ids


@pytest.mark.slow
def test_a_hundred_people_in_a_row(retail, open_page):
    page, people = open_page(retail.loaded), set()
    for _ in range(100):
        page.sidebar.button[0].click().run()
        assert "found by the merged list" in texts(page)
        people.add(page.sidebar.text_input(key="user").value)
    (last,) = retail.tables.partitions.days("total_hit_rate")[-1:]
    assert people == set(map(str, ExploredDay(retail, last).people["user_id"]))


def test_scores_of_the_merged_list_fall_and_history_counts_events_of_the_days_before(day):
    person = day.person("a0")
    scores = person.lists[MERGED]["score"].to_numpy()
    assert (np.diff(scores[~np.isnan(scores)]) <= 1e-9).all()
    number = worlds.DAYS.index(EVALUATION_DAY)
    bought = {(worlds.DAYS[one], item) for one in range(number) for item in worlds.bought("a0", one)}
    assert set(zip(person.history["day"], person.history["item_id"], strict=True)) == bought
    assert (person.history["events"] == 1).all() and person.history["day"].is_monotonic_decreasing


def test_misses_are_counted_by_reason(day):
    counts, people = day.count_misses(), day.people
    assert (counts["found"], counts.sum()) == (people["found"].sum(), people["to_find"].sum())
    assert set(counts.index) == {*Miss, "found"}
    each = [day.person(user).taken["miss"] for user in people["user_id"]]
    assert {miss: sum((one == miss).sum() for one in each) for miss in Miss} == counts.drop("found").to_dict()


def test_a_missed_item_that_the_shop_hides_is_filtered(workspace, day, tmp_path):
    person = next(one for user in day.people["user_id"] if (one := day.person(user)).taken["miss"].ne("").any())
    missed = person.taken[person.taken["miss"] != ""]["item_id"].iloc[0]
    (tmp_path / "blocked.txt").write_text(f"{missed}\n")
    blocking = open_fitted(worlds.changed(workspace, "serving", blocked_items=str(tmp_path / "blocked.txt")))
    taken = blocking.person(person.found.user_id).taken.set_index("item_id")["miss"]
    assert taken[missed] == Miss.FILTERED
    assert taken.drop(missed).tolist() == person.taken.set_index("item_id")["miss"].drop(missed).tolist()


def test_groups_have_the_people_that_they_name(day):
    groups, people = day.groups, day.people.set_index("user_id")
    assert set(groups["everybody"]) == set(people.index)
    assert all(people.loc[user, "found"] < people.loc[user, "to_find"] for user in groups.get("misses", []))
    assert day.find_user(" a0 ") == "a0"
    with pytest.raises(
        InputError, match="person: expected an evaluated user of 2024-01-12, got nobody at all, who took nothing"
    ):
        day.find_user("nobody at all")


def test_who_gets_an_item_most_has_it_in_the_stored_list(workspace, day):
    rows = workspace.tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist()
    count, people = day.find_holders("a_03", most=3)
    ranks = sorted(row["topk_ids"].index("a_03") + 1 for row in rows if "a_03" in row["topk_ids"])
    assert (count, people["rank"].tolist()) == (len(ranks), ranks[:3])


def test_before_the_fit_a_person_has_the_stored_list(workspace, monkeypatch):
    monkeypatch.setattr(explored_day, "fit_rankers", None)  # whoever calls it fails
    rows = workspace.tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist()
    (row,) = [one for one in rows if one["user_id"] == "a0"]
    person = ExploredDay(workspace, EVALUATION_DAY).person("a0")
    assert list(person.lists) == [MODEL]
    assert person.lists[MODEL]["item_id"].tolist() == row["topk_ids"]
    assert person.taken[person.taken["miss"] == ""]["item_id"].tolist() == sorted(row["hit_ids"])


@pytest.mark.parametrize("bound", ["LONG_LOG", "MANY_ITEMS"])
def test_a_large_home_is_read_only_if_asked(workspace, monkeypatch, open_page, bound):
    monkeypatch.setattr(explored_day, bound, 1)
    page = open_page(workspace.loaded)
    assert "are not read for one person" in texts(page)
    assert "The list of the two-tower model" in texts(page)
    page.main.button[0].click().run()
    assert "are not read for one person" not in texts(page)
    assert page.selectbox(key="list").value == MERGED
    for view in VIEWS[1:]:
        assert len(open_page(workspace.loaded, view).dataframe) >= 1


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows(workspace, view, open_page):
    page = open_page(workspace.loaded, view)
    assert "To fix" not in texts(page)
    assert len(page.dataframe) >= 1


def test_people_in_a_row_are_all_of_the_group(workspace, open_page):
    page = open_page(workspace.loaded)
    names = set()
    for _ in worlds.users():
        page.sidebar.button[0].click().run()
        assert "found by the merged list" in texts(page)
        names.add(page.sidebar.text_input[0].value)
    assert names == {forgetting.GONE.get(user, user) for user in worlds.users()}


def test_a_segment_leads_to_its_people(workspace, day, open_page):
    page = open_page(workspace.loaded, "The day")
    (segment,) = day.segments
    assert [one.value for one in page.sidebar.selectbox[1:]] == ["all", "warm"], "as the report begins"
    page.button_group[0].set_value(page.button_group[0].options[0]).run()
    group = page.sidebar.selectbox[1].value
    assert group.startswith(f"{segment}: ")
    assert page.sidebar.text_input[0].value in set(day.groups[group])


def test_segments_are_ordered_by_their_numbers():
    assert order_segments(["(missing)", "0", "1-9", "10-29", "100+", "30-99"]) == [
        "0",
        "1-9",
        "10-29",
        "30-99",
        "100+",
        "(missing)",
    ]


def test_lists_of_a_bundle_are_those_of_its_engine(workspace, open_page):
    bundles = open_bundles(workspace.loaded)
    page = open_page(workspace.loaded, "Two lists", user="a1", **{"second source": f"bundle {bundles.current_id()}"})
    second = page.dataframe[1].value
    answer = RecallEngine.open(bundles).recall_for_user("a1", ListOptions(lists=Lists.VECTORS))
    assert second["item_id"].tolist() == answer.item_ids
    page.text_input(key="second filter").set_value('{"category": ').run()
    assert "filter: expected JSON" in texts(page)


def test_a_session_is_answered_as_recall_does(workspace, open_page):
    page = open_page(workspace.loaded, "A session")
    assert "nothing is known of this person" in texts(page)
    page.sidebar.text_input[0].set_value("b1").run()
    answer = RecallEngine.open(open_bundles(workspace.loaded)).recall_for_user("b1", ListOptions())
    assert page.dataframe[0].value["item_id"].tolist() == answer.item_ids
    assert "stored" in texts(page)


class TestHomesThatLackSomething:
    def test_without_an_evaluated_day_or_a_bundle_a_sentence_says_what_to_do(self, tmp_path, open_page):
        loaded = worlds.write_world(tmp_path / "empty")
        for view in VIEWS:
            assert "To fix: " in texts(open_page(loaded, view)), view

    @pytest.mark.parametrize("lacking", ["serving", "total_hit_rate", "people"])
    def test_without_one_of_them_the_views_that_need_it_say_what_to_do(
        self, workspace, tmp_path, open_page, monkeypatch, lacking
    ):
        folder = workspace.loaded.path.parent
        shutil.copytree(folder, tmp_path / "world", symlinks=True)
        loaded = load_config(tmp_path / "world" / workspace.loaded.path.name, tmp_path / "world" / "home")
        if lacking == "people":
            monkeypatch.setattr(explored_day, "SHOWN_PEOPLE", 0)
        else:
            shutil.rmtree(next((tmp_path / "world" / "home").rglob(lacking)))
        needs = {"serving": {"A session", "An item"}, "total_hit_rate": {"A person", "Two lists", "The day"}}
        for view in VIEWS:
            assert ("To fix: " in texts(open_page(loaded, view))) == (view in needs.get(lacking, {"A person", "Two lists"})), (
                view
            )

    def test_an_unknown_item_is_named(self, workspace, open_page):
        page = open_page(workspace.loaded, "An item")
        page.sidebar.text_input(key="item").set_value("Ж 1").run()
        assert "Ж 1" in texts(page) and "To fix: " in texts(page)

    def test_without_titles_ids_stand_in_their_place(self, workspace, monkeypatch, open_page):
        monkeypatch.setattr(people, "_guess_names", lambda schema: [])
        page = open_page(workspace.loaded, user="a0")
        assert not texts(page).count("To fix")
        shown = page.dataframe[1].value
        assert shown["title"].tolist() == shown["item_id"].tolist()

    def test_columns_of_titles_that_do_not_exist_are_named(self, workspace):
        with pytest.raises(ConfigError, match=r"explore.item_columns: expected columns of category, stock, got heading"):
            ExploredDay(worlds.changed(workspace, "explore", item_columns=["heading"]), EVALUATION_DAY)

    def test_a_day_that_is_being_made_again_and_a_forgotten_person(self, workspace, tmp_path, open_page):
        shutil.copytree(workspace.loaded.path.parent, tmp_path / "world", symlinks=True)
        workspace = open_workspace(load_config(tmp_path / "world" / "config.yaml", tmp_path / "world" / "home"))
        gone = forgetting.GONE["a6"]
        page = open_page(workspace.loaded, user=gone)
        assert f"{gone}, {EVALUATION_DAY}" in texts(page)
        forget(workspace, pa.array([gone]))
        page.run()  # the page was open meanwhile
        assert f"got {gone}, who took nothing" in texts(page)
        for view in VIEWS:
            page = open_page(workspace.loaded, view)
            assert gone not in texts(page) + "".join(one.value.to_string() for one in page.dataframe)
            assert all(gone not in one.options for one in page.selectbox)
        truth = workspace.need("ground_truth", EVALUATION_DAY)
        again = open_workspace(workspace.loaded).tables
        again.write(GROUND_TRUTH, EVALUATION_DAY, again.read(truth).slice(1))
        page = open_page(workspace.loaded)
        assert "hit_counts" in texts(page) and "To fix: " in texts(page)
