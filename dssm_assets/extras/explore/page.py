"""The page, run by Streamlit: its views, top to bottom. What they show comes from `explored_day.py` and the recall engine."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import streamlit as st

from dssm_assets.core import columns as col
from dssm_assets.core.errors import DssmError
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.extras.explore.explored_day import COUNTED_PEOPLE, ExploredDay, Person, Titles
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallAnswer, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets.steps.workspace import Workspace, day_before, open_workspace
from dssm_assets.stored import load_chosen

SHOWN: int = 200
GREEN = "background-color: rgba(46, 160, 67, 0.28)"


@st.cache_resource
def open_home(config: str | None, home: str | None, scene: str | None) -> Workspace:
    return open_workspace(load_chosen(config, home, scene))


@st.cache_resource(max_entries=3)
def open_day(_workspace: Workspace, ds: str, digest: str) -> ExploredDay:
    return ExploredDay(_workspace, ds)


@st.cache_data(max_entries=200, show_spinner="Ranking this person's lists")
def read_person(_day: ExploredDay, ds: str, digest: str, user_id: Any) -> Person:
    return _day.person(user_id)


@st.cache_resource(max_entries=2, show_spinner="Opening the bundle")
def open_engine(_workspace: Workspace, bundle_id: str) -> RecallEngine:
    return RecallEngine.open(open_bundles(_workspace.loaded), bundle_id=bundle_id)


def main() -> None:
    st.set_page_config("dssm-assets", layout="wide")
    parser = argparse.ArgumentParser()
    for name in ("--config", "--home", "--scene"):
        parser.add_argument(name)
    given = parser.parse_args()
    try:
        workspace = open_home(given.config, given.home, given.scene)
        views = {
            "A person": show_person,
            "Two lists": show_two_lists,
            "A session": show_session,
            "An item": show_item,
            "The day": show_day,
        }
        wanted = st.query_params.get("view", "A person")
        names = list(views)
        view = st.sidebar.radio("View", names, index=names.index(wanted) if wanted in names else 0)
        st.query_params["view"] = view
        views[view](workspace)
    except DssmError as error:
        st.error(str(error))


def choose_day(workspace: Workspace, label: str = "Day", at: int = 0) -> ExploredDay | None:
    days = workspace.tables.partitions.days("total_hit_rate")[::-1]
    if not days:
        st.info("No day is evaluated yet. To fix: materialize total_hit_rate, or run dssm-assets demo.")
        return None
    ds = st.sidebar.selectbox(label, days, index=min(at, len(days) - 1))
    return open_day(workspace, ds, workspace.need("hit_counts", ds).digest)


def choose_person(day: ExploredDay) -> Any | None:
    """Returns the id of the chosen person: typed, or another one of a group."""
    groups = day.groups()
    names = list(groups)
    wanted = st.query_params.get("group", names[0])
    group = st.sidebar.selectbox("Group", names, index=names.index(wanted) if wanted in names else 0)
    st.query_params["group"] = group
    ids = groups[group].tolist()
    state = st.session_state
    if st.sidebar.button(f"Another one of {len(ids):,}"):
        state["at"] = state.get("at", -1) + 1
        state["typed"] = str(ids[state["at"] % len(ids)])
    typed = st.sidebar.text_input("Person", key="typed", placeholder=str(ids[0])) or str(ids[0])
    user = day.find_user(typed.strip())
    if user is None:
        st.info(f"{typed} took nothing on {day.ds}, or is not among the evaluated users. To fix: choose another one.")
    return user


def titles_of(day: ExploredDay) -> Titles:
    key = f"titles of {day.ds}"
    if key not in st.session_state:
        st.session_state[key] = Titles(day.workspace, day_before(day.ds))
    found: Titles = st.session_state[key]
    return found


def show_person(workspace: Workspace) -> None:
    day = choose_day(workspace)
    user = None if day is None else choose_person(day)
    if day is None or user is None:
        return
    person, titles = read_person(day, day.ds, day.digest, user), titles_of(day)
    st.subheader(f"{user}, {day.ds}")
    st.markdown(f"**{person.sentence(day.served, day.baseline)}**")
    left, middle, right = st.columns([3, 5, 4])
    with left:
        st.caption(f"Had before: {len(person.history):,} items on {person.history['day'].nunique()} days")
        history = person.history.assign(title=titles.of(person.history["item_id"].tolist()))
        st.dataframe(history[["day", "title", "events", "item_id"]], hide_index=True, height=640)
    with middle:
        names = list(person.lists)
        name = st.selectbox("List", names, index=names.index(day.served), format_func=display_name)
        show_list(person.lists[name].head(SHOWN), titles)
    with right:
        st.caption(f"Took {len(person.taken)} items; ranks in each list, empty beyond the first 1,000")
        show_taken(person, titles, day)


def show_list(found: pd.DataFrame, titles: Titles) -> None:
    shown = found.assign(title=titles.of(found["item_id"].tolist()))
    columns = ["rank", "title", "score", "channels", "why", "item_id"]
    columns = [
        name for name in columns if name not in ("score", "channels", "why") or shown[name].replace("", np.nan).notna().any()
    ]
    taken = found["is_taken"].to_numpy()
    styled = shown[columns].style.apply(lambda row: [GREEN if taken[row.name] else ""] * len(row), axis=1)
    st.dataframe(styled.format({"score": "{:.2f}"}), hide_index=True, height=640)


def show_taken(person: Person, titles: Titles, day: ExploredDay) -> None:
    taken = person.taken.assign(title=titles.of(person.taken["item_id"].tolist()))
    ranks = {name: display_name(name) for name in person.lists}
    order = [day.served, *(name for name in ranks if name != day.served)]
    shown = taken[["title", *order, "miss", "item_id"]].rename(columns=ranks)
    for name in ranks.values():
        shown[name] = shown[name].replace(0, np.nan).astype("Int64")
    is_found = (taken["miss"] == "").to_numpy()
    styled = shown.style.apply(lambda row: [GREEN if is_found[row.name] else ""] * len(row), axis=1)
    st.dataframe(styled, hide_index=True, height=640)


def show_two_lists(workspace: Workspace) -> None:
    day = choose_day(workspace)
    user = None if day is None else choose_person(day)
    if day is None or user is None:
        return
    other_day = choose_day(workspace, "Day of the second list", at=1)
    person = read_person(day, day.ds, day.digest, user)
    other = None
    if other_day is not None and other_day.find_user(str(user)) is not None:
        other = read_person(other_day, other_day.ds, other_day.digest, user)
    choices = {f"{display_name(name)}, {day.ds}": found for name, found in person.lists.items()}
    if other is not None and other_day is not None and other_day.ds != day.ds:
        choices |= {f"{display_name(name)}, {other_day.ds}": found for name, found in other.lists.items()}
    names = list(choices)
    left, right = st.columns(2)
    served = f"{display_name(day.served)}, {day.ds}"
    one = left.selectbox("First list", names, index=names.index(served))
    two = right.selectbox("Second list", names, index=0 if names[0] != served else 1)
    first, second = choices[one].head(SHOWN), choices[two].head(SHOWN)
    rank_of = dict(zip(second["item_id"], second["rank"], strict=True))
    was = dict(zip(first["item_id"], first["rank"], strict=True))
    gone, came = first[~first["item_id"].isin(rank_of)], second[~second["item_id"].isin(was)]
    st.markdown(f"**{len(came)} came in, {len(gone)} went, {len(first) - len(gone)} are in both.**")
    titles = titles_of(day)
    for place, found, others in ((left, first, rank_of), (right, second, was)):
        with place:
            other_rank = found["item_id"].map(others)
            shown = pd.DataFrame(
                {
                    "rank": found["rank"],
                    "other rank": other_rank.astype("Int64"),
                    "title": titles.of(found["item_id"].tolist()),
                    "item_id": found["item_id"],
                }
            )
            taken = found["is_taken"].to_numpy()
            st.dataframe(
                shown.style.apply(lambda row, taken=taken: [GREEN if taken[row.name] else ""] * len(row), axis=1),
                hide_index=True,
                height=640,
            )


def show_session(workspace: Workspace) -> None:
    bundles = open_bundles(workspace.loaded)
    engine = open_engine(workspace, bundles.current_id())
    titles = st.session_state.setdefault("bundle titles", Titles(workspace, engine.bundle.ds))
    user = st.sidebar.text_input("Person (empty: somebody new)")
    lists = st.sidebar.radio("List", [Lists.MERGED, Lists.VECTORS])
    clicked: list[Any] = st.session_state.setdefault("clicked", [])
    if st.sidebar.button("Forget the session") and clicked:
        clicked.clear()
    st.caption(f"Bundle {engine.bundle.bundle_id}. Choose rows to add them as events; the list is what /recall would answer.")
    answer = _ask(engine, user, clicked, lists)
    if clicked:
        st.markdown("**Session:** " + ", ".join(titles.of(clicked)))
    shown = pd.DataFrame(
        {
            "title": titles.of(answer.item_ids),
            "score": answer.scores,
            "channels": [", ".join(one) for one in answer.sources] if answer.sources else "",
            "why": [one.describe() for one in answer.reasons] if answer.reasons else "",
            "item_id": answer.item_ids,
        }
    )
    key = f"list of {user} after {len(clicked)}"
    chosen = st.dataframe(shown, hide_index=True, height=640, on_select="rerun", selection_mode="multi-row", key=key)
    if rows := chosen.selection.rows:
        clicked.extend(answer.item_ids[row] for row in rows)
        st.rerun()


def _ask(engine: RecallEngine, user: str, clicked: list[Any], lists: Lists) -> RecallAnswer:
    inputs = UserInputs(events={"item_ids": clicked}) if clicked else UserInputs()
    options = ListOptions(SHOWN, lists=lists, explain=lists is Lists.MERGED)
    wanted: Any = user.strip() or None
    if wanted is not None and engine.bundle.users.is_integer and wanted.isdigit():
        wanted = int(wanted)
    return engine.recall(UserRequest(wanted, inputs, options))


def show_item(workspace: Workspace) -> None:
    engine = open_engine(workspace, open_bundles(workspace.loaded).current_id())
    bundle = engine.bundle
    titles = st.session_state.setdefault("bundle titles", Titles(workspace, bundle.ds))
    typed = st.sidebar.text_input("Item", key="item") or str(bundle.items.ids_at(bundle.popular_rows[:1])[0])
    similar = engine.similar_items(typed, ListOptions(20))
    row = bundle.items.find_row(bundle.items.parse_id(typed, "item"))
    item = bundle.items.ids_at(np.array([row]))[0]
    st.subheader(titles.of([item])[0])
    left, right = st.columns(2)
    table = workspace.need("item_table", bundle.ds)
    rows = workspace.tables.open(table).to_table(filter=pc.field(col.ITEM_ID) == item).to_pylist()
    left.dataframe(pd.DataFrame([{k: str(v) for k, v in one.items()} for one in rows]).T)
    events = count_events(workspace, item, workspace.tables.partitions.days("item_activity")[-60:])
    if events["events"].sum():
        right.bar_chart(events, x="day", y="events")
    else:
        right.info("Cold: no event with it on the stored days.")
    left.caption("Nearest by vectors")
    left.dataframe(
        pd.DataFrame({"title": titles.of(similar.item_ids), "similarity": similar.scores, "item_id": similar.item_ids}),
        hide_index=True,
    )
    if engine.channels is not None:
        ids, scores = engine.channels.neighbors_of(row)
        names = bundle.items.ids_at(ids)
        right.caption("Nearest as neighbours: taken by the same people")
        right.dataframe(
            pd.DataFrame({"title": titles.of(names), "similarity": scores, "item_id": names}).head(20), hide_index=True
        )


@st.cache_data(max_entries=50)
def count_events(_workspace: Workspace, item: Any, days: list[str]) -> pd.DataFrame:
    found = []
    for ds in days:
        stored = _workspace.tables.open(_workspace.need("item_activity", ds))
        rows = stored.to_table(columns=["count_1d"], filter=pc.field(col.ITEM_ID) == item)
        found.append({"day": ds, "events": int(pc.sum(rows.column(0)).as_py() or 0)})
    return pd.DataFrame(found)


def show_day(workspace: Workspace) -> None:
    day = choose_day(workspace)
    if day is None:
        return
    scopes = sorted(set(day.total.column(col.SCOPE).to_pylist()))
    scope = st.sidebar.selectbox("Scope", scopes, index=scopes.index("all"))
    rows = day.total.to_pandas()
    rows = rows[(rows["scope"] == scope) & (rows["population"] == "all") & (rows["k"] == day.k)]
    rows = rows.sort_values("hit_rate", ascending=False)
    st.subheader(f"hit_rate@{day.k} of {day.ds}, scope {scope}")
    st.dataframe(
        pd.DataFrame(
            {
                "list": [display_name(name) for name in rows["scorer"]],
                "hit rate": rows["hit_rate"].round(4),
                "95% interval": [f"{a:.3f} to {b:.3f}" for a, b in zip(rows["ci_low"], rows["ci_high"], strict=True)],
                "hits": rows["hits"],
                "to find": rows["truth_count"],
                "users": rows["users"],
            }
        ),
        hide_index=True,
    )
    segments = [name for name in day.people.columns if name.startswith("segment_")]
    for name, place in zip(segments, st.columns(max(len(segments), 1)), strict=False):
        sums = day.people.groupby(name)[["found", "baseline_found", "to_find"]].sum()
        rates = sums[["found", "baseline_found"]].div(sums["to_find"], axis=0)
        rates.columns = [display_name(day.served), display_name(day.baseline)]
        place.caption(f"By {name.removeprefix('segment_')}: choose rows to see their people")
        place.bar_chart(rates, stack=False)
        chosen = place.dataframe(rates.round(3), on_select="rerun", selection_mode="single-row", key=name)
        if picked := chosen.selection.rows:
            st.query_params["group"] = f"{name.removeprefix('segment_')}: {rates.index[picked[0]]}"
            st.query_params["view"] = "A person"
            st.rerun()
    if st.button(f"Count the misses of {COUNTED_PEOPLE} people by reason"):
        with st.spinner("Ranking their lists"):
            counts = day.count_misses()
        st.dataframe(pd.DataFrame({"items taken": counts, "share": (counts / counts.sum()).round(3)}))


main()
