"""Projects the cost of a measured daily chain to a larger world.

    python -m dssm_assets_tests.benchmarks.capacity 10m.json --events 1000000000 --users 100000000 --items 10000000

Each step has a driver, the quantity that its cost grows with: events, users or items, or users times items for exact
evaluation. The measured CPU seconds and bytes of a step are multiplied by the growth of its driver. `daily_chain --compare`
shows that costs are proportional to their drivers between the measured worlds; beyond them it is an assumption.

Belongs here: drivers, the arithmetic of the projection, sizes of what must fit in memory, the printed tables. Does not belong
here: measuring (`daily_chain.py`).
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
"""Utilisation of a cluster's cores. The rest is start-up, data transfer and waiting for the slowest part."""
SAMPLED_USERS: Final = 100_000
"""A sample of this size (`evaluation.max_users`) estimates the hit rate to within .003."""
HOURS: Final = 4.0
"""Time in which the chain of one day must finish."""
FLOAT_BYTES: Final = 4
ID_BYTES: Final = 8
HNSW_BYTES: Final = 300
"""Bytes per item in addition to its vector: 2 x 32 neighbours on the lowest level, a few above."""


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
"""Steps of the table engine, which spills to disk when memory is short."""


class Driver(StrEnum):
    """The quantity that the cost of a step grows with."""

    EVENTS = "events"
    USERS = "users"
    ITEMS = "items"
    PAIRS = "users x items"
    NOTHING = "nothing"


_STEPS_BY_DRIVER: Final[dict[Driver, tuple[str, ...]]] = {
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
DRIVERS: Final = {name: driver for driver, names in _STEPS_BY_DRIVER.items() for name in names}
"""Step -> driver. The cost of every other step grows with the events."""


@dataclass(frozen=True)
class Target:
    """The larger world: events of the window, users, items."""

    events: int
    users: int
    items: int


@dataclass(frozen=True)
class Projection:
    """One step, measured and projected.

    Attributes:
        name: the step.
        driver: the quantity that its cost grows with.
        cpu_s_per_million: measured CPU seconds per million events of the window, over all days of the window.
        cpu_hours: projected for one evaluation day: a daily step builds one day, a windowed step one window.
        gbytes: projected size of what one day writes, in 1e9 bytes.
    """

    name: str
    driver: Driver
    cpu_s_per_million: float
    cpu_hours: float
    gbytes: float


def growth_factors(report: ChainReport, target: Target) -> dict[Driver, float]:
    """Returns the ratio of the target world to the measured world for each driver."""
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
    factors = growth_factors(report, target)
    return [_project_step(step, factors, report.rows) for step in report.steps]


def _project_step(step: StepCost, factors: dict[Driver, float], rows: int) -> Projection:
    driver = DRIVERS.get(step.name, Driver.EVENTS)
    work_per_day = factors[driver] / step.days
    # Exact evaluation compares users with items, but it writes one row per user, whose size does not grow.
    bytes_per_day = factors[Driver.USERS if driver is Driver.PAIRS else driver] / step.days
    return Projection(
        name=step.name,
        driver=driver,
        cpu_s_per_million=step.cpu_s / (rows / 1e6),
        cpu_hours=step.cpu_s * work_per_day / 3600,
        gbytes=step.bytes * bytes_per_day / 1e9,
    )


def cores(cpu_hours: float) -> int:
    """Returns how many cores finish the work in HOURS at a utilisation of USED_FRAC."""
    return math.ceil(cpu_hours / (HOURS * USED_FRAC))


def sampled_frac(report: ChainReport, target: Target) -> float:
    """Returns SAMPLED_USERS as a fraction of the users who act on the target's evaluation day, at most 1."""
    acting = next((step.rows for step in report.steps if step.name == "ground_truth"), 0)
    return min(1.0, SAMPLED_USERS / max(acting * target.users / report.world.users, 1.0))


@dataclass(frozen=True)
class Footprint:
    """The size of something that must fit in memory or on one disk as a whole, and the formula of the size."""

    name: str
    gbytes: float
    formula: str


def footprints(target: Target, *, dims: int, embedding_dim: int, history: int) -> list[Footprint]:
    """Returns what must fit in memory or on one disk in the target world, in 1e9 bytes.

    Args:
        target: the world.
        dims: width D of the towers' vectors.
        embedding_dim: width d of the item embedding.
        history: number H of history items per user.
    """
    vector = dims * FLOAT_BYTES
    return [
        Footprint("item vectors: exact search, index Flat", target.items * vector / 1e9, "items x 4 D"),
        Footprint("index IVF", target.items * (vector + dims / 4 + ID_BYTES) / 1e9, "items x (4 D + D / 4 + 8)"),
        Footprint("index HNSW", target.items * (vector + HNSW_BYTES) / 1e9, "items x (4 D + 300)"),
        Footprint("user vectors, stored", target.users * (vector + ID_BYTES) / 1e9, "users x (4 D + 8)"),
        Footprint(
            "item embedding with its optimiser", target.items * (embedding_dim + 1) * FLOAT_BYTES / 1e9, "items x 4 (d + 1)"
        ),
        Footprint("histories, mapped from disk", target.users * history * (FLOAT_BYTES + ID_BYTES) / 1e9, "users x H x 12"),
        Footprint(
            "pairs of the window in hit_counts, mapped from disk", target.events * 2 * FLOAT_BYTES / 1e9, "events x 8 at most"
        ),
    ]


@dataclass(frozen=True)
class Ceiling:
    """The number of events at which a step's process reaches the memory limit.

    Attributes:
        name: the step.
        mib_per_million: MiB added per million events, with the users and items that come with them.
        events: the number of events at which the limit is reached.
        target_gib: GiB of the step in the target world, extrapolated by its driver.
    """

    name: str
    mib_per_million: float
    events: float
    target_gib: float


def ceilings(small: ChainReport, large: ChainReport, limit_mib: float, target: Target) -> list[Ceiling]:
    """Returns the steps whose memory grows between two measured worlds, in the order in which they reach the limit.

    Steps of the table engine are left out, because it spills to disk. So are steps that grow by less than 1 MiB per million events.
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
    """Returns the ceilings as a sentence and a Markdown table."""
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
    """Returns the projection as sentences and Markdown tables."""
    found = project(report, target)
    rows = [
        (one.name, str(one.driver), f"{one.cpu_s_per_million:.2f}", f"{one.cpu_hours:,.2f}", f"{one.gbytes:,.2f}")
        for one in found
    ]
    exact = sum(one.cpu_hours for one in found if one.driver is Driver.PAIRS)
    rest = sum(one.cpu_hours for one in found) - exact
    rows.append(("everything except exact evaluation", "", "", f"{rest:,.1f}", f"{sum(one.gbytes for one in found):,.1f}"))
    header = ("asset", "grows with", "CPU s per 1M events, measured", "CPU hours a day, projected", "GB a day, projected")
    sizes = (
        (one.name, f"{one.gbytes:,.2f}", one.formula)
        for one in footprints(target, dims=dims, embedding_dim=embedding_dim, history=history)
    )
    world = report.world
    return (
        "\n\n".join(
            [
                f"Measured: {report.rows:,} events in {report.window} days, {world.users:,} users, {world.items:,} items, on one core. "
                f"Projected: {target.events:,} events, {target.users:,} users, {target.items:,} items.",
                markdown_table(header, rows),
                f"Projected: everything except exact evaluation takes {rest:,.0f} CPU hours a day, that is {cores(rest):,} cores for "
                f"{HOURS:g} hours at {USED_FRAC:.0%} utilisation. Exact evaluation of every user against every item takes at most "
                f"{exact:,.0f} more, that is {cores(exact):,} cores. Evaluating a sample of {SAMPLED_USERS:,} users takes "
                f"{exact * sampled_frac(report, target):,.1f}, plus the fit of the baselines, which grows with the events.",
                f"Must fit in memory or on one disk, computed with D {dims}, d {embedding_dim}, H {history}:",
                markdown_table(("what", "GB", "size"), list(sizes)),
            ]
        )
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the projection of a report."""
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.capacity", description=__doc__)
    parser.add_argument("report", type=Path, help="JSON of daily_chain --report")
    parser.add_argument(
        "--smaller", type=Path, help="JSON of a smaller world: also show where the memory of one process runs out"
    )
    parser.add_argument("--events", type=int, default=1_000_000_000, help="events in the window")
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
