"""The rates of three days, and plain pandas on the raw parts; the sentence; checks; what was promised offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL
from dssm_assets.extras.shown.log_folder import open_log
from dssm_assets.extras.shown.rates import compare_variants
from dssm_assets.extras.shown.rates_step import online_rates
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.extras.shown.takes import Takes
from dssm_assets.steps.workspace import StepResult, Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.shown import shop_log
from dssm_assets_tests.extras.shown.shop_log import HOUR_MS, answer, write_part
from dssm_assets_tests.worlds import DAYS

HOURS = 6


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    lists = list(shop_log.random_lists(range(4), seed=5))
    events = shop_log.random_events(range(4), lists, seed=6)
    workspace = shop_log.write_shop(tmp_path_factory.mktemp("shop"), lists, events, 5)
    assert len(list(shown(workspace, DAYS[:4]))) == 4
    return workspace


@pytest.fixture(scope="module")
def results(shop: Workspace) -> list[StepResult]:
    return list(online_rates(shop, DAYS[:3]))


def raw_lists(workspace: Workspace) -> pd.DataFrame:
    """Returns the parts with what was shown in place of answers."""
    rows = pd.concat([pd.read_parquet(path) for path in sorted(Path(open_log(workspace.loaded).path).rglob("*.parquet"))])
    answers, instead = (rows[rows.kind == kind] for kind in ("answer", "shown"))
    kept = pd.concat([answers[~answers.request_id.isin(instead.request_id)], instead]).reset_index(drop=True)
    kept["person"] = kept.user_id.fillna(kept.request_id)
    return kept


def mark_taken(lists: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Joins one event after the other."""
    lists = lists.assign(taken=False)
    requests = set(lists.request_id)
    for event in events[events.event.isin(["click", "buy"])].itertuples():
        same = lists[(lists.item_id == event.item_id) & (lists.time_ms + HOURS * HOUR_MS >= event.ts)]
        if event.request_id in requests:
            same = same[same.request_id == event.request_id]
        else:
            same = same[(same.user_id == event.user_id) & (same.time_ms <= event.ts)].sort_values("time_ms").tail(1)
        lists.loc[same.index, "taken"] = True
    return lists


def test_rates_equal_pandas_on_the_raw_parts(shop: Workspace, results: list[StepResult]) -> None:
    events = pd.read_parquet(Path(shop.loaded.home).parent / "source" / "behavior.parquet")
    # A list of the days before or after may have shown an item later; the lists of later days count for these alone.
    lists = mark_taken(raw_lists(shop), events)
    for day, result in enumerate(results):
        for number, days in enumerate([1, day + 1][: day + 1] if day else [1]):
            first = worlds.start_ms(day + 1 - days)
            of_span = lists[(lists.time_ms >= first) & (lists.time_ms < worlds.start_ms(day + 1))]
            rows = pd.DataFrame(shop.tables.read(result.manifest).to_pylist())
            rows = rows[rows.span_days == days].set_index("variant")
            assert set(rows.index) == {"control", "vectors_only"}, number
            means: dict[str, tuple[float, float]] = {}
            for variant, of_variant in of_span.groupby("variant"):
                per_list = of_variant.groupby("request_id").taken.sum()
                taken, row = of_variant[of_variant.taken], rows.loc[variant]
                people = of_variant.groupby("person").agg(n=("request_id", "nunique"), x=("taken", "sum"))
                rate = people.x.sum() / people.n.sum()
                means[variant] = rate, len(people) * (people.x - rate * people.n).var() / people.n.sum() ** 2
                assert (row.lists, row.people, row["items"]) == (len(per_list), len(people), len(of_variant))
                assert row.taken == len(taken) > 5
                assert row.rate_per_list == pytest.approx(rate)
                assert row.rate_per_person == pytest.approx(people.x.mean())
                assert row.mean_rank == pytest.approx(taken.position.mean())
                assert row.hit_share == pytest.approx((per_list > 0).mean())
            (control, first_variance), (other, variance) = means["control"], means["vectors_only"]
            error = 1.96 * np.sqrt(first_variance + variance)
            row = rows.loc["vectors_only"]
            found = [row.difference, row.ci_low, row.ci_high]
            assert found == pytest.approx([other - control, other - control - error, other - control + error], rel=1e-3)
            assert np.isnan(rows.loc["control"].difference)


def test_the_report_tells_how_events_were_joined(shop: Workspace, results: list[StepResult]) -> None:
    facts = results[2].facts
    assert facts["by_request"] > 5
    assert facts["by_person"] > 5
    assert facts["events"] > facts["by_request"] + facts["by_person"]
    assert facts["last_day_of_events"] == DAYS[3]
    report = results[2].report_markdown or ""
    assert "by request, " in report
    assert list(results[2].headline) == ["1 day", "3 days"]
    assert all(sentence in report for sentence in results[2].headline.values())


def counted(**people: list[tuple[int, int]]) -> Takes:
    """Returns takes of people, each with lists and taken items."""
    rows = [
        {"variant": name, "person": f"{name}{number}", "lists": lists, "items": 10 * lists, "taken": taken}
        | {"hits": min(lists, taken), "rank_sum": 3 * taken}
        for name, of_variant in people.items()
        for number, (lists, taken) in enumerate(of_variant)
    ]
    variants = [{"variant": name, "bundle_id": "b", "served_hit_rate": None} for name in people]
    names = ("lists", "items", "taken", "hits", "rank_sum")
    schema = pa.schema([("variant", pa.string()), *((name, pa.int64()) for name in names)])
    table = pa.Table.from_pylist(rows, schema)
    return Takes(table, pa.Table.from_pylist(variants), {})


SHARES = {"control": 0.5, "vectors_only": 0.5}


def test_the_sentence() -> None:
    found = compare_variants(
        counted(control=[(1, 1)] * 149 + [(1, 0)] * 9851, vectors_only=[(1, 1)] * 122 + [(1, 0)] * 9961), SHARES
    )
    start = "vectors_only takes .0121 for .0149 of control, -.0028 [-.0060, .0004]; groups 49.8 / 50.2, as expected (p .56)"
    assert found.sentence == start
    assert found.rows[0]["mean_rank"] == 3


def test_no_variant_is_compared_if_the_groups_are_off() -> None:
    found = compare_variants(counted(control=[(1, 1)] * 5300, vectors_only=[(1, 0)] * 4700), SHARES)
    assert found.is_off
    assert found.sentence == "groups 53.0 / 47.0, not as configured (p < .0001); no variant is compared"
    assert all("difference" not in row for row in found.rows)


def test_a_variant_that_nobody_gets_is_off() -> None:
    assert compare_variants(counted(control=[(1, 1)] * 100), SHARES).is_off


def test_without_variants_there_is_a_rate_alone() -> None:
    assert compare_variants(counted(all=[(4, 1), (4, 0)]), {}).sentence == ".1250 is taken of a list"
    assert compare_variants(counted(all=[]), {}).sentence == "none is taken of a list"


def test_people_in_no_variant_are_not_compared() -> None:
    people: dict[str, Any] = {"": [(4, 1)] * 9, "all": [(4, 1)] * 9, "control": [(1, 0)] * 30, "vectors_only": [(1, 1)] * 30}
    found = compare_variants(counted(**people), SHARES)
    assert [row["variant"] for row in found.rows if "difference" in row] == ["vectors_only"]
    assert found.ratio_p == 1


def test_a_sample_ratio_that_is_off_fails_the_check(tmp_path: Path) -> None:
    lists = [
        answer(f"r{number}", None, ["a_00"], worlds.start_ms(0) + number, variant=number_of(number)) for number in range(400)
    ]
    shop = shop_log.write_shop(
        tmp_path, [[row for rows in lists for row in rows]], shop_log.random_events([0], lists[:5], 1), 1
    )
    list(shown(shop, DAYS[:1]))
    (result,) = online_rates(shop, DAYS[:1])
    assert not result.checks[0].is_passed
    assert "not as configured" in result.checks[0].description
    assert all(row["difference"] is None for row in shop.tables.read(result.manifest).to_pylist())


def number_of(number: int) -> str:
    return "control" if number % 3 else "vectors_only"


def test_a_span_ends_where_the_variants_change(shop: Workspace, tmp_path: Path) -> None:
    lists = [*shop_log.random_lists([1, 2], seed=5), answer("early", "a0", ["a_01"], worlds.start_ms(0) + 5, variant="old")]
    other = shop_log.write_shop(tmp_path, lists, shop_log.random_events([0, 1, 2], lists, 6), 3)
    list(shown(other, DAYS[:3]))
    (result,) = online_rates(other, [DAYS[2]])
    assert list(result.headline) == ["1 day", "2 days"]


def test_the_promise_of_the_bundle_is_beside_what_was_served(tmp_path_factory: pytest.TempPathFactory) -> None:
    built = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("promise") / "world", shop_log.CONFIG)
    workspace = open_workspace(built)
    day = len(DAYS) - 1
    for number, (user, variant) in enumerate([("a1", "control"), ("b1", "vectors_only")]):
        seen = [*worlds.bought(user, day)[:2], "a_xx"]  # two of the three items bought later
        write_part(built, answer(f"r{number}", user, seen, worlds.start_ms(day) + 1, variant=variant))
    list(shown(workspace, [DAYS[day]]))
    (result,) = online_rates(workspace, [DAYS[day]])
    total = workspace.tables.read(workspace.need("total_hit_rate", DAYS[day])).to_pylist()
    for row in workspace.tables.read(result.manifest).to_pylist():
        scorer = MODEL if row["variant"] == "vectors_only" else MERGED
        (promised,) = [
            one["hit_rate"]
            for one in total
            if (one["scorer"], one["scope"], one["population"], one["k"]) == (scorer, "all", "all", 5)
        ]
        assert (row["offline_k"], row["offline_hit_rate"]) == (5, promised)
        assert row["served_hit_rate"] == pytest.approx(2 / 3)
        assert row["bundle_id"].startswith(worlds.EVALUATION_DAY)
