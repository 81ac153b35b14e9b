"""The page about single people: its numbers are those of the tables, and every view shows without an error."""

from __future__ import annotations

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL
from dssm_assets.extras.explore.command import PAGE
from dssm_assets.extras.explore.explored_day import ExploredDay, Miss, Titles
from dssm_assets.steps.workspace import day_before, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle
from dssm_assets_tests.worlds import EVALUATION_DAY


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = open_workspace(worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("explored") / "world"))
    publish_bundle(workspace)
    return workspace


@pytest.fixture(scope="module")
def day(workspace):
    return ExploredDay(workspace, EVALUATION_DAY)


def test_ranks_and_hits_of_each_person_are_those_of_the_tables(workspace, day):
    detail = {
        row["user_id"]: row for row in workspace.tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist()
    }
    truth = {row["user_id"]: row for row in workspace.tables.read(workspace.need("ground_truth", EVALUATION_DAY)).to_pylist()}
    assert set(day.people["user_id"]) == set(truth)
    for user, row in truth.items():
        person = day.person(user)
        assert person.taken["item_id"].tolist() == row["gt_items"]
        assert person.lists[MODEL]["item_id"].tolist()[: day.k] == detail[user]["topk_ids"]
        assert set(person.hits) >= {MODEL, MERGED, *person.lists}
        for name, found in person.lists.items():
            first = found.head(day.k)
            assert first["is_taken"].sum() == person.hits[name]
            assert first[first["is_taken"]]["item_id"].isin(row["gt_items"]).all()
            ranks = dict(zip(found["item_id"], found["rank"], strict=True))
            assert person.taken[name].tolist() == [ranks.get(item, 0) for item in row["gt_items"]]
        is_found = person.taken["miss"] == ""
        assert is_found.sum() == person.hits[day.served]
        assert person.sentence(day.served, day.baseline).startswith(f"{is_found.sum()} of {len(row['gt_items'])} found")


def test_scores_of_the_merged_list_fall_and_history_counts_events_of_the_days_before(day):
    person = day.person("a0")
    scores = person.lists[MERGED]["score"].to_numpy()
    assert (np.diff(scores[~np.isnan(scores)]) <= 1e-9).all()
    number = worlds.DAYS.index(EVALUATION_DAY)
    bought = {(worlds.DAYS[one], item) for one in range(number) for item in worlds.bought("a0", one)}
    assert set(zip(person.history["day"], person.history["item_id"], strict=True)) == bought
    assert (person.history["events"] == 1).all()


def test_misses_are_counted_by_reason(day):
    counts = day.count_misses()
    people = day.people
    assert counts["found"] == people["found"].sum()
    assert counts.sum() == people["to_find"].sum()
    assert set(counts.index) == {*Miss, "found"}


def test_groups_have_the_people_that_they_name(day):
    groups, people = day.groups(), day.people.set_index("user_id")
    assert set(groups["everybody"]) == set(people.index)
    assert all(people.loc[user, "found"] < people.loc[user, "to_find"] for user in groups.get("misses", []))
    assert day.find_user("a0") == "a0"
    assert day.find_user("nobody at all") is None


def test_titles_are_columns_that_look_like_names_or_the_ids(workspace):
    titles = Titles(workspace, day_before(EVALUATION_DAY))
    assert titles.columns == ["category"]
    assert titles.of(["a_00", "nowhere"]) == ["cat_a", "nowhere"]


@pytest.mark.parametrize("view", ["A person", "Two lists", "A session", "An item", "The day"])
def test_every_view_shows(workspace, view, monkeypatch):
    monkeypatch.setattr("sys.argv", ["page.py", f"--config={workspace.loaded.path}", f"--home={workspace.loaded.home}"])
    page = AppTest.from_file(str(PAGE), default_timeout=60)
    page.query_params["view"] = view
    page.run()
    assert not page.exception
    assert not page.error
    assert len(page.dataframe) >= 1


def test_a_home_without_an_evaluated_day_says_what_to_do(tmp_path, monkeypatch):
    loaded = worlds.write_world(tmp_path / "empty")
    monkeypatch.setattr("sys.argv", ["page.py", f"--config={loaded.path}", f"--home={loaded.home}"])
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    assert "materialize total_hit_rate" in page.info[0].value
