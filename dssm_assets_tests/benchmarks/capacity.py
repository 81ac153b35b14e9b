"""What a measured chain says of a larger world: a projection, computed, marked as one.

    python -m dssm_assets_tests.benchmarks.capacity 10m.json --events 1000000000 --users 100000000 --items 10000000

Each step has a driver, what its cost follows: events, users or items, or users times items for exact evaluation. A step's
measured CPU seconds and bytes are multiplied by how many times more of its driver the larger world has. That its cost is
proportional to the driver is what `daily_chain --compare` shows between worlds that were measured; beyond them it is assumed.

Belongs here: drivers, the arithmetic of the projection, memory of what must be held, its tables. Does not belong here:
measuring (`daily_chain.py`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from dssm_assets_tests.benchmarks.daily_chain import ChainReport, StepCost, markdown_table

USED_FRAC: Final = 0.7
"""Share of a cluster's core hours that is work: the rest is waiting for the slowest part, starting, moving data."""
SAMPLED_USERS: Final = 100_000
"""Of whom the hit rate is known to within .003: what a day of more users is scored on (`evaluation.max_users`)."""
HOURS: Final = 4.0
"""In which the chain of a day is to be done."""
FLOAT_BYTES: Final = 4
ID_BYTES: Final = 8
HNSW_BYTES: Final = 300
"""Of an item beside its vector: 2 x 32 neighbours on the lowest level, a few above."""


SPILLING: Final = (
    "behavior",
    "user_activity",
    "item_activity",
    "pair_activity",
    "user_preferences",
    "user_history",
    "user_all_feature",
    "item_all_feature",
    "sample",
)
"""Steps of the table engine."""


class Driver(StrEnum):
    """What the cost of a step follows."""

    EVENTS = "events"
    USERS = "users"
    ITEMS = "items"
    PAIRS = "users x items"
    NOTHING = "nothing"


_OF: Final[dict[Driver, tuple[str, ...]]] = {
    Driver.USERS: ("user_table", "user_all_feature", "user_features_fg", "user_vectors", "serving_bundle"),
    Driver.ITEMS: ("item_table", "item_activity", "item_all_feature", "item_features_fg", "negative_items", "item_vectors"),
    Driver.PAIRS: ("hit_counts", "hit_rate_detail"),
    Driver.NOTHING: (
        "training_window",
        "feature_binning",
        "feature_counts",
        "feature_config",
        "step_config",
        "training_config",
        "total_hit_rate",
        "experiments",
    ),
}
DRIVERS: Final = {name: driver for driver, names in _OF.items() for name in names}
"""Step -> driver; every other step follows the events."""


@dataclass(frozen=True)
class Target:
    """The world that is projected to: events of the window, users, items."""

    events: int
    users: int
    items: int


@dataclass(frozen=True)
class Projection:
    """One step, measured and projected.

    Attributes:
        name: the step.
        driver: what its cost follows.
        cpu_s_per_million: measured CPU seconds per million events of the window, over all days of the window.
        cpu_hours: projected, of one day: a daily step makes one day, a windowed one its window.
        gbytes: projected size of what one day writes, in thousand millions of bytes.
    """

    name: str
    driver: Driver
    cpu_s_per_million: float
    cpu_hours: float
    gbytes: float


def times_more(report: ChainReport, target: Target) -> dict[Driver, float]:
    """Returns how many times more of each driver the target has than the measured world."""
    users, items = target.users / report.world.users, target.items / report.world.items
    return {
        Driver.EVENTS: target.events / report.rows,
        Driver.USERS: users,
        Driver.ITEMS: items,
        Driver.PAIRS: users * items,
        Driver.NOTHING: 1.0,
    }


def project(report: ChainReport, target: Target) -> list[Projection]:
    """Returns what each step would cost in the target world."""
    more = times_more(report, target)
    return [_projection(step, more, report.rows) for step in report.steps]


def _projection(step: StepCost, more: dict[Driver, float], rows: int) -> Projection:
    driver = DRIVERS.get(step.name, Driver.EVENTS)
    of_a_day = more[driver] / step.days
    # Of exact evaluation only the work follows users times items: a user's row does not grow with them.
    written = more[Driver.USERS if driver is Driver.PAIRS else driver] / step.days
    return Projection(
        name=step.name,
        driver=driver,
        cpu_s_per_million=step.cpu_s / (rows / 1e6),
        cpu_hours=step.cpu_s * of_a_day / 3600,
        gbytes=step.bytes * written / 1e9,
    )


def cores(cpu_hours: float) -> int:
    """Returns how many cores do so much work in HOURS when USED_FRAC of their time is work."""
    return math.ceil(cpu_hours / (HOURS * USED_FRAC))


def sampled_frac(report: ChainReport, target: Target) -> float:
    """Returns which share of the users who act on the target's evaluation day a sample of SAMPLED_USERS is; 1 at most."""
    acted = next((step.rows for step in report.steps if step.name == "ground_truth"), 0)
    return min(1.0, SAMPLED_USERS / max(acted * target.users / report.world.users, 1.0))


@dataclass(frozen=True)
class Held:
    """Something that must be in memory, or on one disk, as a whole: its size, and what decides it."""

    name: str
    gbytes: float
    formula: str


def held(target: Target, *, dims: int, embedding_dim: int, history: int) -> list[Held]:
    """Returns what has to be held of the target world, in thousand millions of bytes.

    Args:
        target: the world.
        dims: width D of the towers' vectors.
        embedding_dim: width d of the item embedding.
        history: past items H kept per user.
    """
    vector = dims * FLOAT_BYTES
    return [
        Held("item vectors: exact search, index Flat", target.items * vector / 1e9, "items x 4 D"),
        Held("index IVF", target.items * (vector + ID_BYTES) / 1e9, "items x (4 D + 8)"),
        Held("index HNSW", target.items * (vector + HNSW_BYTES) / 1e9, "items x (4 D + 300)"),
        Held("user vectors, stored", target.users * (vector + ID_BYTES) / 1e9, "users x (4 D + 8)"),
        Held("item embedding with its optimiser", target.items * (embedding_dim + 1) * FLOAT_BYTES / 1e9, "items x 4 (d + 1)"),
        Held("histories, mapped from disk", target.users * history * (FLOAT_BYTES + ID_BYTES) / 1e9, "users x H x 12"),
        Held(
            "pairs of the window in hit_counts, mapped from disk", target.events * 2 * FLOAT_BYTES / 1e9, "events x 8 at most"
        ),
    ]


@dataclass(frozen=True)
class Ceiling:
    """Where a step's memory in one process ends.

    Attributes:
        name: the step.
        mib_per_million: MiB that a million events more, with the users and items that come with them, add.
        events: at which the limit is reached.
        target_gib: GiB that the step would hold in the target world, by what its cost follows.
    """

    name: str
    mib_per_million: float
    events: float
    target_gib: float


def ceilings(small: ChainReport, large: ChainReport, limit_mib: float, target: Target) -> list[Ceiling]:
    """Returns the steps whose memory grows between two measured worlds, the first to reach a limit first.

    Left out are the steps of the table engine, which spills where it would grow, and what grows by less than 1 MiB a million.
    """
    before = {step.name: step for step in small.steps}
    millions = (large.rows - small.rows) / 1e6
    target_of_more = {
        Driver.USERS: target.users / (large.world.users - small.world.users),
        Driver.ITEMS: target.items / (large.world.items - small.world.items),
    }
    by_events = target.events / (large.rows - small.rows)
    found = []
    for step in large.steps:
        if step.name in before and step.name not in SPILLING:
            slope = (step.counted_mib - before[step.name].counted_mib) / millions
            if slope >= 1.0:
                driver = DRIVERS.get(step.name, Driver.EVENTS)
                target_gib = slope * millions * target_of_more.get(driver, by_events) / 1024
                events = large.rows + (limit_mib - step.counted_mib) / slope * 1e6
                found.append(Ceiling(step.name, slope, events, target_gib))
    return sorted(found, key=lambda one: one.events)


def render_ceilings(small: ChainReport, large: ChainReport, limit_mib: int, target: Target) -> str:
    """Returns the ceilings as text and a table of Markdown."""
    rows = [
        (one.name, f"{one.mib_per_million:,.0f}", f"{one.events / 1e6:,.0f} million", f"{one.target_gib:,.0f}")
        for one in ceilings(small, large, limit_mib, target)
    ]
    reached = f"events at which {limit_mib:,} MiB are reached, projected"
    header = ("step", "MiB per 1M events, measured", reached, f"GiB at {target.events / 1e6:,.0f} million events, projected")
    title = (
        f"Between {small.rows:,} events ({small.world.users:,} users, {small.world.items:,} items) and {large.rows:,} events "
        f"({large.world.users:,} users, {large.world.items:,} items):"
    )
    return f"{title}\n\n{markdown_table(header, rows)}\n"


def render(report: ChainReport, target: Target, *, dims: int = 64, embedding_dim: int = 32, history: int = 50) -> str:
    """Returns the projection as text and tables of Markdown."""
    found = project(report, target)
    rows = [
        (one.name, str(one.driver), f"{one.cpu_s_per_million:.2f}", f"{one.cpu_hours:,.2f}", f"{one.gbytes:,.2f}")
        for one in found
    ]
    exact = sum(one.cpu_hours for one in found if one.driver is Driver.PAIRS)
    rest = sum(one.cpu_hours for one in found) - exact
    rows.append(("all but exact evaluation", "", "", f"{rest:,.1f}", f"{sum(one.gbytes for one in found):,.1f}"))
    header = ("asset", "follows", "CPU s per 1M events, measured", "CPU hours a day, projected", "GB a day, projected")
    sizes = (
        (one.name, f"{one.gbytes:,.2f}", one.formula)
        for one in held(target, dims=dims, embedding_dim=embedding_dim, history=history)
    )
    world = report.world
    return (
        "\n\n".join(
            [
                f"Measured: {report.rows:,} events in {report.window} days, {world.users:,} users, {world.items:,} items, on one core. "
                f"Projected: {target.events:,} events, {target.users:,} users, {target.items:,} items.",
                markdown_table(header, rows),
                f"Projected: all but exact evaluation {rest:,.0f} CPU hours a day, so {cores(rest):,} cores for {HOURS:g} hours of which "
                f"{USED_FRAC:.0%} is work; exact evaluation of every user against every item at most "
                f"{exact:,.0f} more, {cores(exact):,} cores; of {SAMPLED_USERS:,} users {exact * sampled_frac(report, target):,.1f}, "
                "and what is fitted for all of them together, which follows the events.",
                f"Held, computed, with D {dims}, d {embedding_dim}, H {history}:",
                markdown_table(("what", "GB", "size"), list(sizes)),
            ]
        )
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the projection of a report."""
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.capacity", description=__doc__)
    parser.add_argument("report", type=Path, help="JSON of daily_chain --report")
    parser.add_argument("--smaller", type=Path, help="JSON of a smaller world: show where memory in one process ends, too")
    parser.add_argument("--events", type=int, default=1_000_000_000, help="in the window")
    parser.add_argument("--users", type=int, default=100_000_000)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--dims", type=int, default=64, help="width of the towers' vectors")
    given = parser.parse_args(arguments)
    report = ChainReport.from_json(given.report.read_text(encoding="utf-8"))
    target = Target(given.events, given.users, given.items)
    sys.stdout.write(render(report, target, dims=given.dims))
    if given.smaller:
        smaller = ChainReport.from_json(given.smaller.read_text(encoding="utf-8"))
        sys.stdout.write("\n" + render_ceilings(smaller, report, report.limit_mib or 2048, target))


if __name__ == "__main__":
    main()
