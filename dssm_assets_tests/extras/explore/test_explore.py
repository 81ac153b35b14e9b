"""The page about single people: its numbers are those of the tables, and every view shows without an error."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest
from streamlit import cache_data, cache_resource
from streamlit.testing.v1 import AppTest

from dssm_assets.core.errors import ConfigError
from dssm_assets.core.evaluation.evaluation_tables import GROUND_TRUTH, MERGED, MODEL
from dssm_assets.extras.explore import explored_day
from dssm_assets.extras.explore.command import PAGE
from dssm_assets.extras.explore.explored_day import ExploredDay, Miss, order_segments
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine
from dssm_assets.steps import people
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

forget = pytest.importorskip("dssm_assets.extras.retention.forget").forget
forgetting = pytest.importorskip("dssm_assets_tests.extras.retention.forgetting")
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
    return ExploredDay(workspace, EVALUATION_DAY)


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


def test_ranks_and_hits_of_each_person_are_those_of_the_tables(workspace, day):
    tables = workspace.tables
    detail = {row["user_id"]: row for row in tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist()}
    truth = {row["user_id"]: row for row in tables.read(workspace.need("ground_truth", EVALUATION_DAY)).to_pylist()}
    assert set(day.people["user_id"]) == set(truth)
    for user, row in truth.items():
        person = day.person(user)
        assert person.taken["item_id"].tolist() == row["gt_items"]
        assert person.lists[MODEL]["item_id"].tolist()[: day.k] == detail[user]["topk_ids"]
        assert set(person.hits) == set(person.lists)
        for name, found in person.lists.items():
            first = found.head(day.k)
            assert first["is_taken"].sum() == person.hits[name]
            assert first[first["is_taken"]]["item_id"].isin(row["gt_items"]).all()
            ranks = dict(zip(found["item_id"], found["rank"], strict=True))
            assert person.taken[name].tolist() == [ranks.get(item, 0) for item in row["gt_items"]]
        is_found = person.taken["miss"] == ""
        assert is_found.sum() == person.hits[day.served]
        assert person.found.describe().startswith(f"{is_found.sum()} of {len(row['gt_items'])} found")


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
    blocking = ExploredDay(worlds.changed(workspace, "serving", blocked_items=str(tmp_path / "blocked.txt")), EVALUATION_DAY)
    taken = blocking.person(person.found.user_id).taken.set_index("item_id")["miss"]
    assert taken[missed] == Miss.FILTERED
    assert taken.drop(missed).tolist() == person.taken.set_index("item_id")["miss"].drop(missed).tolist()


def test_groups_have_the_people_that_they_name(day):
    groups, people = day.groups(), day.people.set_index("user_id")
    assert set(groups["everybody"]) == set(people.index)
    assert all(people.loc[user, "found"] < people.loc[user, "to_find"] for user in groups.get("misses", []))
    assert day.find_user(" a0 ") == "a0"
    assert day.find_user("nobody at all") is None


def test_who_gets_an_item_most_has_it_in_the_stored_list(workspace, day):
    rows = workspace.tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist()
    count, people = day.find_holders("a_03", most=3)
    ranks = sorted(row["topk_ids"].index("a_03") + 1 for row in rows if "a_03" in row["topk_ids"])
    assert (count, people["rank"].tolist()) == (len(ranks), ranks[:3])


def test_a_long_log_is_ranked_only_if_asked(workspace, monkeypatch):
    monkeypatch.setattr(explored_day, "LONG_LOG", 1)
    monkeypatch.setattr(explored_day, "fit_rankers", None)  # whoever calls it fails
    day = ExploredDay(workspace, EVALUATION_DAY)
    (row,) = [
        one
        for one in workspace.tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist()
        if one["user_id"] == "a0"
    ]
    person = day.person("a0")
    assert list(person.lists) == [MODEL]
    assert person.lists[MODEL]["item_id"].tolist() == row["topk_ids"]
    assert person.taken[person.taken["miss"] == ""]["item_id"].tolist() == sorted(row["hit_ids"])


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
    assert page.sidebar.text_input[0].value in set(day.groups()[group])


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
        assert f"{gone} took nothing on" in texts(page)
        for view in VIEWS:
            page = open_page(workspace.loaded, view)
            assert gone not in texts(page) + "".join(one.value.to_string() for one in page.dataframe)
            assert all(gone not in one.options for one in page.selectbox)
        truth = workspace.need("ground_truth", EVALUATION_DAY)
        again = open_workspace(workspace.loaded).tables
        again.write(GROUND_TRUTH, EVALUATION_DAY, again.read(truth).slice(1))
        page = open_page(workspace.loaded)
        assert "hit_counts" in texts(page) and "To fix: " in texts(page)
