"""A simulated shop: people take items of what they are shown by a known rule, and a variant is 10% better. Prints the sentences.

    python -m dssm_assets_tests.benchmarks.shown_shop --people 30000

A person gets a list of 10 items on some days, more often or less. An item is taken with the person's own propensity times
1 / position; vectors_only has 1.1 times control's. Two takes in three name their request. Groups are those of the service's rule.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.extras.shown.log_folder import open_log
from dssm_assets.extras.shown.parts import part_schema
from dssm_assets.extras.shown.rates_step import online_rates
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.extras.shown.variants import choose_variation, hash_person, ranges_of_shares
from dssm_assets.steps import source
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds

DAYS, LENGTH, ITEMS = 7, 10, 500
VARIANTS = ("control", "vectors_only")
CONFIG = {
    "calendar": {"timezone": "UTC"},
    "events": {"funnel": ["click"], "positive": ["click"]},
    "tables": {"behavior": {"value_columns": [], "context_columns": []}},
    "serving": {"shown": {}, "variants": [{"name": name, "share": 0.5} for name in VARIANTS]},
    "evaluation": {"shown": {"events": ["click"], "hours": 24}},
}


def simulate(people: int, seed: int, lift: float) -> Iterator[tuple[int, pa.Table, pa.Table]]:
    """Yields each day with its rows of the log and of the events."""
    rng = np.random.default_rng(seed)
    visits, propensity = rng.beta(2, 3, people), rng.beta(1, 40, people)
    numbers = [hash_person("tiny:variants", f"u{person}") for person in range(people)]
    group = np.array([choose_variation(number, ranges_of_shares([0.5, 0.5])) for number in numbers])
    for day in range(DAYS):
        start = int(dt.datetime.fromisoformat(worlds.DAYS[day]).replace(tzinfo=dt.UTC).timestamp() * 1000)
        users = np.repeat(np.flatnonzero(rng.random(people) < visits), LENGTH)
        count = len(users) // LENGTH
        times = np.repeat(start + rng.integers(0, 86_400_000, count), LENGTH)
        positions = np.tile(np.arange(1, LENGTH + 1), count)
        items = np.concatenate([rng.choice(ITEMS, LENGTH, replace=False) for _ in range(count)])
        chance = propensity[users] * np.where(group[users] == 1, 1 + lift, 1.0) / positions
        taken = np.flatnonzero(rng.random(len(users)) < chance)
        ids, names = (pa.array([f"{mark}{one}" for one in of]) for mark, of in (("u", users), ("i", items)))
        requests = pa.array([f"{day}-{row // LENGTH}" for row in range(len(users))])
        columns = ["answer", times, requests, ids, pa.array([VARIANTS[one] for one in group[users]]), "none", positions]
        columns = [pa.repeat(one, len(users)) if isinstance(one, str) else one for one in [*columns, names]]
        nothing = [pa.nulls(len(users), pa.float64()), pa.nulls(len(users), pa.list_(pa.string()))]
        log = pa.table([*columns, *nothing], part_schema(pa.string(), pa.string()).names)
        later = times[taken] + rng.integers(1_000, 12 * 3_600_000, len(taken))
        asked = pa.array(
            [None if number % 3 == 0 else str(requests[int(row)]) for number, row in enumerate(taken)], pa.string()
        )
        clicks = {"user_id": ids.take(taken), "item_id": names.take(taken), "ts": later, "request_id": asked}
        yield day, log.cast(part_schema(pa.string(), pa.string())), pa.table(clicks | {"event": pa.repeat("click", len(taken))})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dssm_assets_tests.benchmarks.shown_shop", description=(__doc__ or "").split("\n")[0]
    )
    for name, default in (("people", 30_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lift", type=float, default=0.1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        loaded = worlds.write_config(Path(folder), CONFIG)
        events = []
        for day, log, clicks in simulate(options.people, options.seed, options.lift):
            place = Path(open_log(loaded).path) / f"ds={worlds.DAYS[day]}"
            place.mkdir(parents=True)
            pq.write_table(log, place / "part.parquet")
            events.append(clicks)
        (Path(folder) / "source").mkdir()
        pq.write_table(pa.concat_tables(events), Path(folder) / "source" / "behavior.parquet")
        workspace, days = open_workspace(loaded), worlds.DAYS[:DAYS]
        list(source.behavior_table(workspace, days))
        list(shown(workspace, days))
        for result in online_rates(workspace, [days[0], days[2], days[6]]):
            span, sentence = list(result.headline.items())[-1]
            facts = {name: result.facts[name] for name in ("events", "by_request", "by_person")}
            print(f"{span}: {sentence} {facts}")


if __name__ == "__main__":
    main(sys.argv[1:])
