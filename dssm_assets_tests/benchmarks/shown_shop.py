"""A simulated shop on the demo: its households get lists of the bundle for seven days and take items by a known rule.

    python -m dssm_assets_tests.benchmarks.shown_shop --home .dssm

Prints the sentence after 1, 3 and 7 days, and what lies between the offline hit rate and that of what was served. The home is
one of `dssm-assets demo`; what is read of it is copied. The rule:

1. A household buys again what it bought 364 days before, at that time of the day, whatever it is shown.
2. It opens the shop a number of times a day (Poisson; its mean is from a gamma distribution, 3 on average) at uniform times, and
   gets 10 items: control the merged list, vectors_only that of the vectors.
3. Of a list of control it takes the item at rank r with probability a / r, where a is the household's own (beta(4, 76)), within
   ten minutes. For vectors_only, a is multiplied so that the takes of a list by 1 and 3 together are expected to be 10% more.

Two takes in three name their request. The bundle does not change, so a household's list is the same on all days.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from dssm_assets.core.errors import DssmError
from dssm_assets.extras.shown import served
from dssm_assets.extras.shown.rates_step import online_rates
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallAnswer, RecallEngine, UserRequest
from dssm_assets.steps import source
from dssm_assets.steps.workspace import day_before, days_between, open_workspace, start_of_day_ms
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets.storage.layout import serving_root

DAYS, LENGTH, VISITS, DAY_MS, BLOCK = 7, 10, 3.0, 86_400_000, 256
VARIANTS: Final = {"control": Lists.MERGED, "vectors_only": Lists.VECTORS}
SECTIONS: Final[dict[str, Any]] = {
    "serving": {
        "shown": {},
        "variants": [{"name": name, "share": 0.5, "channels": str(lists)} for name, lists in VARIANTS.items()],
    },
    "evaluation": {"shown": {"events": ["buy"], "hours": 24}},
}


def copy_home(home: Path, folder: Path, seed: int) -> tuple[LoadedConfig, str]:
    """Copies what is read of a home; returns its configuration with `SECTIONS` and the last evaluation day."""
    config = yaml.safe_load((home / "config.yaml").read_text())
    last: dt.date = config["calendar"]["end"]
    for name in ("tables/serving", f"tables/total_hit_rate/ds={last}"):
        shutil.copytree(home / name, folder / name)
    shutil.copy(home / "complete_journey.fg.json", folder)
    config["calendar"]["end"] = last + dt.timedelta(DAYS + 1)
    for name, section in SECTIONS.items():
        config[name] |= section
    config["serving"]["experiment"] = f"seed_{seed}"  # each seed draws other groups
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return load_config(folder / "config.yaml", folder), last.isoformat()


def draw_visits(users: np.ndarray, start: int, rng: np.random.Generator) -> pd.DataFrame:
    """Returns one row per visit, by time: number, user_id, time."""
    visits = np.repeat(users, rng.poisson(rng.gamma(2, VISITS / 2, len(users)) * DAYS))
    table = pd.DataFrame({"user_id": visits, "time": start + rng.integers(0, DAYS * DAY_MS, len(visits))})
    return table.sort_values("time", ignore_index=True).rename_axis("number").reset_index()


def find_lists(engine: RecallEngine, users: np.ndarray, lists: Lists) -> pd.DataFrame:
    """Returns what a variant shows to everybody: user_id, item_id, rank."""
    asked = [UserRequest(int(user), options=ListOptions(LENGTH, lists=lists)) for user in users]
    found = zip(users, engine.compute_lists(asked, lambda: None), strict=True)
    rows = [(user, item, rank) for user, one in found for rank, item in enumerate(read(one).item_ids, 1)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])


def read(answer: RecallAnswer | DssmError) -> RecallAnswer:
    if isinstance(answer, DssmError):
        raise answer
    return answer


def find_bought(visits: pd.DataFrame, purchases: pd.DataFrame) -> pd.DataFrame:
    """Returns the purchases of 24 hours after a visit, with the latest one: number."""
    found = pd.merge_asof(purchases, visits, on="time", by="user_id", tolerance=DAY_MS)
    return found.dropna(subset="number").astype({"number": int})


def expect_takes(visits: pd.DataFrame, bought: pd.DataFrame, lists: pd.DataFrame, rates: pd.Series) -> tuple[int, float]:
    """Returns how many shown items are bought anyway if everybody is in the variant, and the sum of a / r of the others."""
    shown_rows = visits.merge(lists, on="user_id")
    is_bought = pd.MultiIndex.from_frame(shown_rows[["number", "item_id"]]).isin(
        pd.MultiIndex.from_frame(bought[["number", "item_id"]])
    )
    others = shown_rows[~is_bought]
    return int(is_bought.sum()), float((others.user_id.map(rates) / others["rank"]).sum())


def serve(engine: RecallEngine, visits: pd.DataFrame) -> Iterator[tuple[int, RecallAnswer]]:
    """Yields the number and the answer of each visit. The clock of the log shows the times of visits."""
    clock = mock.Mock(time_ns=map((1_000_000).__mul__, visits.time.tolist()).__next__, monotonic=time.monotonic)
    with mock.patch.object(served, "time", clock):
        for start in range(0, len(visits), BLOCK):
            block = visits.iloc[start : start + BLOCK]
            asked = [UserRequest(user, options=ListOptions(LENGTH)) for user in block.user_id.tolist()]
            yield from zip(block.number.tolist(), map(read, engine.recall_for_users(asked)), strict=True)


def write_source(home: Path, folder: Path, last: str, later: pd.DataFrame) -> None:
    """Writes the demo's log up to its last day, whose last events are of the next one by UTC, and what is bought later."""
    log = pq.read_table(home / "source" / "behavior.parquet")
    log = log.filter(pc.less(log.column("event_time"), pa.scalar(dt.datetime.fromisoformat(day_before(last, -1)))))
    log = log.set_column(log.schema.get_field_index("basket_id"), "basket_id", log.column("basket_id").cast(pa.string()))
    later = later.rename(columns={"request_id": "basket_id"})
    columns = {name: pa.array(later[name], log.schema.field(name).type) for name in ("user_id", "item_id", "basket_id")}
    columns["event_time"] = pa.array(later.time, pa.timestamp("ms")).cast(log.schema.field("event_time").type)
    rows = [columns.get(field.name, pa.nulls(len(later), field.type)) for field in log.schema]
    (folder / "source").mkdir()
    pq.write_table(pa.concat_tables([log, pa.table(rows, log.schema)]), folder / "source" / "behavior.parquet")


def count_hits(purchases: pd.DataFrame, lists: pd.DataFrame) -> str:
    """Writes the fraction of the pairs of household and item that lists have."""
    pairs = purchases[["user_id", "item_id"]].drop_duplicates()
    hits = len(pairs.merge(lists, on=["user_id", "item_id"]))
    return f"{hits / len(pairs):.4f} ({hits:,} of {len(pairs):,})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dssm_assets_tests.benchmarks.shown_shop", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--home", type=Path, required=True, help="of `dssm-assets demo`; it stays as it is")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lift", type=float, default=0.1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        run_shop(options.home, Path(folder), options.seed, options.lift)


def run_shop(home: Path, folder: Path, seed: int, lift: float) -> None:
    loaded, last = copy_home(home, folder, seed)
    days, rng = days_between(day_before(last, -1), day_before(last, -DAYS)), np.random.default_rng(seed)
    start = start_of_day_ms(days[0], loaded.config.calendar.timezone)
    users = pq.read_table(home / "source" / "users.parquet").column("user_id").to_numpy()
    visits, rates = draw_visits(users, start, rng), pd.Series(rng.beta(4, 76, len(users)), users)
    purchases = read_year_before(home, start)
    hook = served.open_hook(loaded.config.serving, serving_root(loaded.root), {})
    engine = LiveEngine(serving_root(loaded.root), hook=hook).engine
    lists = {name: find_lists(engine, users, kind) for name, kind in VARIANTS.items()}
    bought = find_bought(visits, purchases)
    (kept, base), (other_kept, other_base) = (expect_takes(visits, bought, one, rates) for one in lists.values())
    factor = ((1 + lift) * (kept + base) - other_kept) / other_base
    answers = dict(serve(engine, visits))
    hook.close()
    assert hook.state.waiting_rows == hook.state.counts["rows_dropped"] == 0
    rows = [
        (number, one.variant, one.request_id, item, rank)
        for number, one in answers.items()
        for rank, item in enumerate(one.item_ids, 1)
    ]
    shown_rows = pd.DataFrame(rows, columns=["number", "variant", "request_id", "item_id", "rank"]).merge(visits, on="number")
    chance = shown_rows.user_id.map(rates) * np.where(shown_rows.variant == "control", 1, factor) / shown_rows["rank"]
    takes = shown_rows[rng.random(len(shown_rows)) < chance].copy()
    takes["time"] += rng.integers(1_000, 600_000, len(takes))
    takes.loc[rng.random(len(takes)) < 1 / 3, "request_id"] = None
    write_source(home, folder, last, pd.concat([purchases, takes]))
    workspace = open_workspace(loaded)
    list(source.behavior_table(workspace, [*days, day_before(days[-1], -1)]))
    list(shown(workspace, days))
    results = list(online_rates(workspace, days))
    for result in (results[0], results[2], results[6]):
        span, sentence = list(result.headline.items())[-1]
        print(f"{span}: {sentence} { ({name: result.facts[name] for name in ('events', 'by_request', 'by_person')}) }")
    truth = (kept + base) / len(visits)
    print(f"by the rule: {truth * (1 + lift):.4f} for {truth:.4f}, {lift * truth:+.4f}; a is multiplied by {factor:.3f}")
    group = shown_rows.drop_duplicates("user_id").set_index("user_id").variant
    in_week = purchases[purchases.time < start + DAYS * DAY_MS]
    for row in workspace.tables.read(results[-1].manifest).to_pylist():
        if row["span_days"] != DAYS:
            continue
        name = row["variant"]
        theirs = bought[bought.user_id.map(group) == name]
        print(f"{name}: hit_rate@{row['offline_k']} of {last} {row['offline_hit_rate']:.4f}")
        print(f"  what all households buy anyway in the week: {count_hits(in_week, lists[name])}")
        print(f"  of it, what visitors of the variant buy within 24 hours: {count_hits(theirs, lists[name])}")
        both = pd.concat([theirs, takes[takes.variant == name]])
        print(f"  and what they take because it is shown: {count_hits(both, lists[name])}")
        print(f"served_hit_rate {row['served_hit_rate']:.4f}, mean rank of what is taken {row['mean_rank']:.2f}")


def read_year_before(home: Path, start: int) -> pd.DataFrame:
    """Returns what is bought in the days and the one after them, by time: user_id, item_id, time, request_id (none)."""
    log = pq.read_table(home / "source" / "behavior.parquet", columns=["user_id", "item_id", "event_time"])
    times = log.column("event_time").cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy() + 364 * DAY_MS
    table = log.select(["user_id", "item_id"]).to_pandas().assign(time=times, request_id=None)
    return table[(times >= start) & (times < start + (DAYS + 1) * DAY_MS)].sort_values("time", ignore_index=True)


if __name__ == "__main__":
    main(sys.argv[1:])
