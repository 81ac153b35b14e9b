"""The page, run by Streamlit: its views, top to bottom. What they show comes from `explored_day.py` and the recall engine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import streamlit as st

from dssm_assets.core import columns as col
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MERGED_WITHOUT, MODEL, is_part
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.evaluation.people import describe_ranks
from dssm_assets.extras.explore.explored_day import COUNTED_PEOPLE, DEPTH, ExploredDay, Person, order_segments
from dssm_assets.installed_extras import find_extras, load_extra
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.steps.people import Titles
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.overlay import OverlayStore, experiment_names
from dssm_assets.stored import load_chosen

SHOWN: Final = 200
GREEN: Final = "background-color: rgba(46, 160, 67, 0.28)"
STYLE: Final = """<style>
[data-testid="stMainBlockContainer"] {padding: 3rem 2rem 1rem}
[data-testid="stSidebar"] {width: 14rem !important; min-width: 14rem}
[data-testid="stHorizontalBlock"] {flex-wrap: wrap}
[data-testid="stColumn"] {min-width: 15rem}
@media (max-width: 1100px) {[data-testid="stHorizontalBlock"]:has(> :nth-child(3)) > [data-testid="stColumn"] {min-width: 100%}}
</style>"""  # three columns stand below one another where they would be too narrow
ROW_PIXELS: Final = 35
WRAPPED_PIXELS: Final = 66  # text wraps in rows of more than 64
WIDTHS: Final[Mapping[str, int]] = {
    "rank": 45,
    "title": 170,
    "why": 250,
    "goes with": 360,
    "why missed": 90,
    "other lists": 430,
    "day": 90,
}
state = st.session_state


@st.cache_resource
def open_home(config: str | None, home: str | None, scene: str | None) -> Workspace:
    return open_workspace(load_chosen(config, home, scene))


@st.cache_resource(max_entries=3)
def open_day(_workspace: Workspace, ds: str, experiment: str | None, version: str) -> ExploredDay:
    return ExploredDay(_workspace, ds)


@st.cache_resource(max_entries=10, show_spinner="Reading")
def read_person(_day: ExploredDay, day_id: int, is_fitted: bool, user_id: Any) -> Person:
    return _day.person(user_id)


@st.cache_resource(max_entries=2, show_spinner="Opening the bundle")
def open_bundle(_workspace: Workspace, bundle_id: str, hidden: str) -> RecallEngine:
    return RecallEngine.open(open_bundles(_workspace.loaded), bundle_id=bundle_id)


def main() -> None:
    st.set_page_config("dssm-assets", layout="wide")
    st.html(STYLE)
    parser = argparse.ArgumentParser()
    for name in ("--config", "--home", "--scene"):
        parser.add_argument(name)
    given = parser.parse_args()
    views = {
        "A person": show_person,
        "Two lists": show_two_lists,
        "A session": show_session,
        "An item": show_item,
        "The day": show_day,
    }
    try:
        workspace = open_home(given.config, given.home, given.scene)
        views[choose(st.sidebar.radio, "View", list(views), "view")](workspace)
    except DssmError as error:
        st.error(str(error))
    except FileNotFoundError as error:
        st.error(f"A file is gone: {error}. Is the day being made again? To fix: reload this page.")


def choose(widget: Callable[..., Any], label: str, options: Sequence[str], key: str, default: str = "", **more: Any) -> str:
    """Returns the chosen option. The page's address keeps it."""
    if state.get(key) not in options:
        wanted = [one for one in (st.query_params.get(key), default, *options) if one in options]
        state[key] = wanted[0]
    st.query_params[key] = chosen = str(widget(label, options, key=key, **more))
    return chosen


def open_evaluated(workspace: Workspace, ds: str, experiment: str | None = None) -> ExploredDay:
    if experiment is not None:
        workspace = load_extra("experiments", "experiments").reopen_experiment(workspace, experiment, ds)
    versions = [workspace.need(name, ds).digest for name in ("total_hit_rate", "hit_counts")]
    return open_day(workspace, ds, experiment, f"{versions} {workspace.tables.partitions.hidden.read().state}")


def choose_day(workspace: Workspace) -> ExploredDay:
    days = workspace.tables.partitions.days("total_hit_rate")[::-1]
    if not days:
        remedy = "materialize total_hit_rate, or run dssm-assets demo"
        raise InputError(Fault("table total_hit_rate", "an evaluated day", "none", remedy))
    return open_evaluated(workspace, choose(st.sidebar.selectbox, "Day", days, "day"))


def choose_person(day: ExploredDay) -> Any:
    """Returns the id of the chosen person: typed, or another one of a group."""

    def go_to(number: int) -> None:
        ids = day.groups[state["group"]]
        state["number"], state["user"] = number, str(ids.iloc[number % len(ids)])

    group = choose(st.sidebar.selectbox, "Group", list(day.groups), "group", on_change=partial(go_to, 0))
    first, count = str(day.groups[group].iloc[0]), len(day.groups[group])
    if "user" not in state:
        state["user"] = st.query_params.get("user", first)
    st.sidebar.button(f"Another one of {count:,}", on_click=go_to, args=[state.get("number", 0) + 1])
    typed = st.query_params["user"] = st.sidebar.text_input("Person", key="user") or first
    return day.find_user(typed)


def fit_day(day: ExploredDay, key: str = "fit") -> bool:
    """Fits what all people share, in a large home only if a button is pressed. Returns whether all lists can be ranked."""
    if not day.is_fitted and day.is_large:
        st.info(
            f"{day.log_rows:,} rows of user history are not read for one person: only the stored list of the vectors is shown."
        )
        if not st.button("Rank all lists: reads the whole log once, as long as hit_counts took to fit", key=key):
            return False
    if not day.is_fitted:
        with st.spinner("Fitting what all people share, once: then all lists follow"):
            day.fit()
    return True


def show_rows(
    shown: pd.DataFrame, titles: Titles | None = None, green: Sequence[bool] = (), row_height: int = ROW_PIXELS, **more: Any
) -> Any:
    """Shows a table; rows are marked green. The second column gets the titles of its items. Columns without values are left out."""
    if titles is not None:
        shown = shown.copy()
        shown.insert(1, "title", titles.of(shown[col.ITEM_ID].tolist()))
    names = [str(name) for name in shown if name == "title" or shown[name].replace("", np.nan).notna().any()]
    shown = shown[names].reset_index(drop=True)
    numbers = shown.select_dtypes("float").columns
    columns: dict[str, Any] = {name: st.column_config.Column(width=WIDTHS.get(name)) for name in names}
    columns |= {name: st.column_config.NumberColumn(format="%.2f") for name in numbers}
    height = min(640, ROW_PIXELS + row_height * len(shown) + 3)
    marked: Any = shown
    if any(green):
        marks = np.where(np.array(green)[:, None], GREEN, np.full(shown.shape, ""))
        marked = shown.style.format(precision=2, na_rep="").apply(lambda _: pd.DataFrame(marks, columns=names), axis=None)
    return st.dataframe(marked, hide_index=True, height=height, row_height=row_height, column_config=columns, **more)


def show_person(workspace: Workspace) -> None:
    day = choose_day(workspace)
    user = choose_person(day)
    person = read_person(day, id(day), day.is_fitted, user)
    st.subheader(f"{user}, {day.ds}")
    st.markdown(f"**{person.found.describe()}**")
    waiting = st.container()
    left, middle, right = st.columns([3, 7, 5])
    with left:
        history = person.history
        st.caption(f"Had before: {len(history):,} items on {history['day'].nunique()} days")
        show_rows(history[["day", "events", col.ITEM_ID]].head(2000), day.titles)
    with middle:
        names, name = [name for name in person.lists if not name.startswith(MERGED_WITHOUT)], MODEL
        if day.is_fitted:
            name = choose(
                st.selectbox, "List", names, "list", day.served, format_func=display_name, label_visibility="collapsed"
            )
        else:
            st.caption(f"The list of the {display_name(name)}")
        found = person.lists[name].head(SHOWN)
        order = [one for one in ("rank", "why", "goes with", "score", "channels", col.ITEM_ID) if one in found]
        show_rows(found[order], day.titles, found["is_taken"].tolist(), WRAPPED_PIXELS)
    with right:
        taken, served = person.taken, day.served if day.served in person.lists else MODEL
        st.caption(f"Took {len(taken)}; green: in the first {day.k} of the {display_name(served)}")
        others = [name for name in names if name != served and not is_part(name)]
        shown = {
            "rank": taken[served].map(lambda rank: str(rank or "-")),
            "why missed": taken["miss"].str.partition(":")[0],
            "other lists": [describe_ranks(dict(zip(others, row, strict=True)), DEPTH) for row in taken[others].to_numpy()]
            if others
            else "",
            col.ITEM_ID: taken[col.ITEM_ID],
        }
        show_rows(pd.DataFrame(shown), day.titles, (taken["miss"] == "").tolist(), WRAPPED_PIXELS)
    with waiting:
        if not day.is_fitted and fit_day(day):
            st.rerun()


def show_two_lists(workspace: Workspace) -> None:
    day = choose_day(workspace)
    user = choose_person(day)
    taken = read_person(day, id(day), day.is_fitted, user).taken[col.ITEM_ID].tolist()
    sources = _find_sources(workspace, day)
    sides: list[pd.DataFrame] = []
    for place, side in zip(st.columns(2), ("first", "second"), strict=True):
        with place:
            source = choose(st.selectbox, f"{side.capitalize()} list from", list(sources), f"{side} source")
            try:
                lists = sources[source](user, side)
            except DssmError as error:
                st.info(str(error))
                return
            default = MODEL if side == "second" else ""
            name = choose(st.selectbox, "List", list(lists), f"{side} list", default, format_func=display_name)
            sides.append(lists[name])
    first, second = sides
    ranks = [dict(zip(found[col.ITEM_ID], found["rank"], strict=True)) for found in (first, second)]
    both = ranks[0].keys() & ranks[1].keys()
    moved = sum(ranks[0][item] != ranks[1][item] for item in both)
    st.markdown(
        f"**{len(second) - len(both)} came in, {len(first) - len(both)} went, {len(both)} are in both, {moved} of these moved.**"
    )
    for place, found, others, alone in zip(st.columns(2), (first, second), ranks[::-1], ("went", "came in"), strict=True):
        ids = found[col.ITEM_ID].tolist()
        shown = {"rank": found["rank"], "in the other": [str(others.get(item, alone)) for item in ids], col.ITEM_ID: ids}
        with place:
            show_rows(pd.DataFrame(shown), day.titles, [item in taken for item in ids])


def _find_sources(workspace: Workspace, day: ExploredDay) -> dict[str, Callable[[Any, str], dict[str, pd.DataFrame]]]:
    def read_day(ds: str, experiment: str | None, user: Any, side: str) -> dict[str, pd.DataFrame]:
        other = open_evaluated(workspace, ds, experiment)
        same = other.find_user(str(user))
        fit_day(other, f"{side} fit")
        lists = read_person(other, id(other), other.is_fitted, same).lists
        return {name: found.head(SHOWN) for name, found in sorted(lists.items(), key=lambda one: one[0] != other.served)}

    store = workspace.tables.partitions
    days = [day.ds, *(ds for ds in store.days("total_hit_rate")[::-1] if ds != day.ds)]
    sources: dict[str, Any] = {ds: partial(read_day, ds, None) for ds in days}
    for name in experiment_names(store) if "experiments" in find_extras() else []:
        overlay = OverlayStore(store, name)
        if (own := overlay.find("total_hit_rate", day.ds)) is not None and overlay.is_own(own):
            sources[f"{day.ds}, experiment {name}"] = partial(read_day, day.ds, name)
    pointer = open_bundles(workspace.loaded).pointer()
    for bundle_id in reversed(pointer.stored if pointer else ()):
        sources[f"bundle {bundle_id}"] = partial(_read_bundle, workspace, bundle_id)
    return sources


def _read_bundle(workspace: Workspace, bundle_id: str, user: Any, side: str) -> dict[str, pd.DataFrame]:
    engine = open_engine(workspace, bundle_id)
    text = st.text_input('Filter, as /recall takes it, such as {"brand": "National"}', key=f"{side} filter")
    is_new = st.checkbox("Without what the person had before", key=f"{side} new") if engine.channels else False
    try:
        filters = json.loads(text) if text.strip() else None
    except ValueError as error:
        raise InputError(Fault("filter", "JSON", str(error), "correct it")) from error
    found = {}
    for name, kind in ((MERGED, Lists.MERGED), (MODEL, Lists.VECTORS)) if engine.channels else ((MODEL, None),):
        answer = engine.recall_for_user(user, ListOptions(SHOWN, filters=filters, lists=kind, exclude_history=is_new))
        found[name] = pd.DataFrame({"rank": range(1, len(answer.item_ids) + 1), col.ITEM_ID: answer.item_ids})
    return found


def open_engine(workspace: Workspace, bundle_id: str | None = None) -> RecallEngine:
    """Returns the engine of a bundle, by default the published one. It hides the items that a service would hide."""
    bundles, serving = open_bundles(workspace.loaded), workspace.config.serving
    engine = open_bundle(workspace, bundle_id or bundles.current_id(), bundles.hidden.read().state)
    lists = ShopLists(serving.blocked_items, serving.stocked_items, bundles.root, workspace.config.storage.options)
    return engine.showing(lists.find_shown(engine.bundle.items))


def show_session(workspace: Workspace) -> None:
    engine = open_engine(workspace)
    titles = Titles(workspace, engine.bundle.ds)
    user = st.sidebar.text_input("Person (empty: somebody new)").strip()
    kinds = [Lists.MERGED, Lists.VECTORS] if engine.channels else [Lists.VECTORS]
    lists = Lists(choose(st.sidebar.radio, "List", kinds, "kind"))
    clicked: list[Any] = state.setdefault("clicked", [])
    st.sidebar.button("Forget the session", on_click=clicked.clear)
    is_merged = lists is Lists.MERGED
    options = ListOptions(SHOWN, lists=lists if engine.channels else None, explain=is_merged)
    inputs = UserInputs(events={"item_ids": clicked}) if clicked else UserInputs()
    answer = engine.recall(UserRequest(user or None, inputs, options))
    origin = {"popular": "what is popular, since nothing is known of this person", "stored": "the stored vector and items"}
    st.markdown(f"**The list is from {origin.get(answer.source, 'the stored history and this session')}.**")
    st.caption(f"Bundle {engine.bundle.bundle_id}. Choose rows to add them as events; the list is what /recall would answer.")
    if clicked:
        st.markdown("**Session:** " + ", ".join(titles.of(clicked)).replace("$", "\\$"))
    shown = pd.DataFrame({"rank": range(1, len(answer.item_ids) + 1), "score": answer.scores})
    if answer.reasons:
        shown["why"] = [one.describe(titles.of) for one in answer.reasons]
    if answer.sources:
        shown["channels"] = [", ".join(one) for one in answer.sources]
    chosen = show_rows(
        shown.assign(item_id=answer.item_ids),
        titles,
        on_select="rerun",
        selection_mode="multi-row",
        key=f"list of {user} after {len(clicked)}",
    )
    if rows := chosen.selection.rows:
        clicked.extend(answer.item_ids[row] for row in rows)
        st.rerun()


def show_item(workspace: Workspace) -> None:
    engine = open_engine(workspace)
    bundle, titles = engine.bundle, Titles(workspace, engine.bundle.ds)
    day = choose_day(workspace) if workspace.tables.partitions.days("total_hit_rate") else None
    typed = st.sidebar.text_input("Item", key="item").strip() or str(bundle.items.ids_at(bundle.popular_rows[:1])[0])
    similar = engine.similar_items(typed, ListOptions(20))
    item = bundle.items.parse_id(typed, "item")
    st.subheader(titles.of([item])[0])
    events, total = count_events(workspace, item)
    cold = "Cold: nobody had an event with it." if not total else f"{total:,} events since {workspace.config.calendar.start}."
    st.markdown(f"**{cold}**")
    left, right = st.columns(2)
    with left:
        stored = workspace.tables.open(workspace.need("item_table", bundle.ds))
        rows = stored.to_table(filter=pc.field(col.ITEM_ID) == item).to_pylist()
        values = [(name, str(value)) for row in rows for name, value in row.items()]
        show_rows(pd.DataFrame(values, columns=["column", "value"]))
        st.caption("Nearest by vectors")
        show_rows(pd.DataFrame({"similarity": similar.scores, col.ITEM_ID: similar.item_ids}), titles)
    with right:
        if total:
            st.bar_chart(events, x="day", y="events", height=250)
        if day is not None:
            count, people = day.find_holders(item)
            st.caption(f"In the list of the vectors of {count:,} people on {day.ds}; who gets it most")
            show_rows(people)
        if engine.channels is not None:
            ids, scores = engine.channels.neighbors_of(bundle.items.find_row(item))
            st.caption("Nearest as neighbors: taken by the same people")
            show_rows(pd.DataFrame({"similarity": scores[:20], col.ITEM_ID: bundle.items.ids_at(ids[:20])}), titles)


def count_events(workspace: Workspace, item: Any) -> tuple[pd.DataFrame, int]:
    """Returns an item's positive events on each of the last 60 stored days, and their number since the calendar's start."""
    counted, total, days = [], 0, workspace.tables.partitions.days("item_activity")[-60:]
    wanted = (pc.field(col.ITEM_ID) == item) & pc.field(col.EVENT).isin(workspace.config.events.positive)
    for ds in days:
        rows = workspace.tables.open(workspace.need("item_activity", ds)).to_table(
            columns=["count_1d", "count_total"], filter=wanted
        )
        events, total = (pc.sum(column).as_py() or 0 for column in rows.columns)
        counted.append((ds, events))
    return pd.DataFrame(counted, columns=["day", "events"]), total


def show_day(workspace: Workspace) -> None:
    day = choose_day(workspace)
    rates = day.total.to_pandas()
    scope, population = (
        choose(st.sidebar.selectbox, label, sorted(set(rates[label.lower()])), label.lower(), default)
        for label, default in (("Scope", "all"), ("Population", "warm"))
    )
    rows = rates[(rates["scope"] == scope) & (rates["population"] == population) & (rates["k"] == day.k)]
    rows = rows.sort_values("hit_rate", ascending=False)
    st.subheader(f"hit_rate@{day.k} of {day.ds}, scope {scope}, users and items {population.replace('_', ' ')}")
    shown = {
        "list": [display_name(name) for name in rows["scorer"]],
        "hit rate": [
            f"{rate:.3f} [{low:.3f}, {high:.3f}]"
            for rate, low, high in zip(rows["hit_rate"], rows["ci_low"], rows["ci_high"], strict=True)
        ],
        "hits": rows["hits"],
        "to find": rows["truth_count"],
        "users": rows["users"],
    }
    show_rows(pd.DataFrame(shown))
    names = {"found": display_name(day.served), "baseline_found": display_name(day.baseline)}
    for segment, place in zip(day.segments, st.columns(max(len(day.segments), 1)), strict=False):
        sums = day.people.groupby(f"segment_{segment}")[[*names, "to_find"]].sum()
        sums = sums.loc[order_segments(sums.index)]
        with place:
            st.caption(f"Fraction found by {segment}")
            st.bar_chart(sums[[*names]].div(sums["to_find"], axis=0).rename(columns=names), sort=False, stack=False, height=250)
            st.pills("See the people of", list(sums.index), key=segment, on_change=partial(_see_people, segment))
    if not fit_day(day):
        return
    counts = count_misses(day, id(day))
    st.caption(
        f"What the first {min(COUNTED_PEOPLE, len(day.people)):,} people took, by the reason of the miss in the {names['found']}"
    )
    show_rows(pd.DataFrame({"reason": counts.index, "items": counts, "share": counts / counts.sum()}))


@st.cache_data(max_entries=10, show_spinner="Ranking their lists")
def count_misses(_day: ExploredDay, day_id: int) -> pd.Series:
    return _day.count_misses()


def _see_people(segment: str) -> None:
    state["view"], state["group"] = "A person", f"{segment}: {state[segment]}"
    state.pop("user", None)
    st.query_params.pop("user", None)


main()
