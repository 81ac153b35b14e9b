"""The report and its charts, from a whole run over a generated world."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.charts import hit_rate_png
from dssm_assets.core.evaluation.hits import count_hits, hit_rate_detail
from dssm_assets.core.evaluation.list_quality import LISTS, OVERLAP_SCHEMA, QUALITY_SCHEMA, list_quality
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA, Gain, gains_over_best, split_cells, sum_hits, trend_table
from dssm_assets.core.evaluation.report import (
    ListFacts,
    ReportFacts,
    cell,
    channel_section,
    headline,
    list_section,
    render_report,
    scope_section,
    segment_report,
    segment_section,
    trend_section,
)
from dssm_assets.core.evaluation.scorer import InteractedItems, ModelScorer, model_scorer, read_corpus
from dssm_assets.core.evaluation.segments import SEGMENT_SCHEMA, Cuts, ItemPopularity, label_activity, segment_table
from dssm_assets.core.evaluation.truth import Truth, ground_truth, read_truth
from dssm_assets.core.names import Population, Scope, counted_population
from dssm_assets_tests.core.evaluation.worlds import events_table, fitted_scorers, pairs_table, read_interactions, total_row

SETTINGS = Evaluation(bootstrap_samples=200)
PNG = b"\x89PNG\r\n\x1a\n"
Run = tuple[ModelScorer, Truth, tuple[pa.Table, dict[str, int]], pa.Table, pa.Table]


@pytest.fixture(scope="module")
def run() -> Run:
    """300 users with preferences of their own; the model's vectors are these preferences with noise."""
    rng = np.random.default_rng(8)
    users, items, dim = 300, 1200, 8
    preference, kind = rng.normal(size=(users, dim)), rng.normal(size=(items, dim)) * rng.gamma(2, 0.5, size=(items, 1))
    odds = np.exp(preference @ kind.T / 2)
    odds /= odds.sum(axis=1, keepdims=True)

    def draw(least: int, most: int) -> list[tuple[str, str]]:
        return [
            (f"u{user:03d}", f"i{item:04d}")
            for user in range(users)
            for item in rng.choice(items, size=rng.integers(least, most), p=odds[user]).tolist()
        ]

    window, day = draw(0, 40), [*draw(0, 8), ("zz", "i0001"), ("u001", "never seen")]
    events = events_table([(user, item, 1, place) for place, (user, item) in enumerate(window)])

    def vectors(values: np.ndarray, side: str, width: int) -> pa.Table:
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), dim)
        return pa.table({f"{side}_id": [f"{side[0]}{i:0{width}d}" for i in range(len(values))], f"{side}_tower_emb": rows})

    item_vectors = vectors(kind, "item", 4)
    truth = read_truth(ground_truth(pairs_table(day), [pairs_table(window)]), item_vectors.column("item_id"))
    noisy = preference + rng.normal(size=preference.shape) * 0.5
    model = model_scorer(*read_corpus(item_vectors, Similarity.INNER_PRODUCT), vectors(noisy, "user", 3), truth.user_ids)
    seen = read_interactions(events, truth.user_ids, model.item_ids)
    scorers = [model, *fitted_scorers(seen, seen, seen, SETTINGS)]
    counts = count_hits(scorers, truth, InteractedItems(*[seen.exclusions] * 2), SETTINGS.k)
    events_of_user = np.bincount(seen.user_index, seen.count, truth.num_users)[: truth.num_users]
    activity = label_activity(events_of_user, SETTINGS.segments[0].activity_edges)
    lists = model.top_k(np.arange(truth.num_users), SETTINGS.k[-1])
    detail = hit_rate_detail(*lists, truth, Cuts({"activity": activity}), item_ids=model.item_ids)
    return model, truth, counts, detail, sum_hits(split_cells(counts[0]), SETTINGS.k, SETTINGS.bootstrap_samples, 3)


def report(run: Run, **options: Any) -> str:
    model, truth, counts, detail, total = run
    popularity = ItemPopularity(model.item_ids, np.arange(len(model.item_ids)))
    quality = list_quality(detail.select([LISTS]).to_batches(), popularity, SETTINGS.k)
    outside = int((truth.pair_item < 0).sum())
    counted = truth.num_users, counts[1], int((model.vector_row < 0).sum())
    facts = ReportFacts(*counted, len(truth.pair_item), outside, len(model.item_ids))
    return render_report(
        day="2026-03-01",
        total=total,
        segments={"model": segment_table(detail, SETTINGS, seed=3)},
        gains=gains_over_best(split_cells(counts[0]), total, k=200, samples=200, seed=3),
        facts=facts,
        lists=ListFacts(quality, OVERLAP_SCHEMA.empty_table(), None, popularity),
        trend=trend_table([("2026-03-01", total)], 200),
        **options,
    )


@pytest.mark.parametrize(
    ("bounds", "verdict"), [((0.001, 0.02), "yes"), ((0.0, 0.02), "not shown"), ((-0.02, -0.001), "no, it costs")]
)
def test_channels_say_whether_each_is_surely_worth_its_place(bounds: tuple[float, float], verdict: str) -> None:
    rows = [total_row(name, k=200) for name in ("merged", "merged_without_vectors", "model")]
    gain = Gain("merged", "merged_without_vectors", Scope.ALL, 200, sum(bounds) / 2, *bounds)
    assert f"] | {verdict} |" in channel_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), [gain])


@pytest.mark.parametrize(("users", "sentence"), [(900, "a sample of 900 of these 2,000 users"), (2000, None)])
def test_channels_say_of_how_many_users_they_are(users: int, sentence: str | None) -> None:
    named = {"merged": 2000, "merged_without_vectors": users, "model": 2000}
    rows = [{**total_row(name, k=200), "users": counted} for name, counted in named.items()]
    gain = Gain("merged", "merged_without_vectors", Scope.ALL, 200, 0.01, 0.0, 0.02)
    text = channel_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), [gain])
    assert "| vectors |" in text and "+0.0100 [+0.0000, +0.0200]" in text
    assert ("sample" in text) is (sentence is not None) and (sentence or "") in text


def test_a_scope_says_how_many_users_are_scored_though_parts_are_of_a_sample() -> None:
    rows = [{**total_row(name, k=200), "users": users} for name, users in (("channel_own_history", 900), ("model", 2000))]
    assert "2,000 users" in scope_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), Scope.ALL, None)


def test_a_report_on_a_span_of_days_names_them(run: Run) -> None:
    assert report(run).count("on the day") == 3
    assert (report(run, span_days=7).count("on these 7 days"), report(run, span_days=7).count("on the day")) == (3, 0)


def test_detail_and_totals_agree(run: Run) -> None:
    *_, detail, total = run
    rows = {(r["scorer"], r["scope"], r["population"], r["k"]): r for r in total.to_pylist()}
    everything, warm = rows["model", "all", "all", 200], rows["model", "all", "warm", 200]
    assert everything["hits"] == sum(detail.column("hits").to_pylist())
    assert everything["truth_count"] == sum(detail.column("truth_count").to_pylist())
    assert warm["hits"] == sum(detail.column("warm_hits").to_pylist())
    assert warm["truth_count"] == sum(detail.column("warm_truth_count").to_pylist())
    discovery, repeat, both = (rows["model", scope, "all", 200]["truth_count"] for scope in ("discovery", "repeat", "all"))
    assert discovery + repeat == both


def test_report_has_every_number_and_one_small_picture(run: Run) -> None:
    text = report(run)
    rows = [row for row in run[4].to_pylist() if row["population"] == "warm"]
    assert len(rows) == 9 * 5 * 4
    for row in rows:
        assert f"{row['hit_rate']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]" in text
        if row["k"] == 200:
            interval = f"{row['ndcg']:.3f} [{row['ndcg_ci_low']:.3f}, {row['ndcg_ci_high']:.3f}]"
            assert f" | {interval} | {row['user_recall']:.3f} | {row['user_hit_rate']:.3f} |" in text
    (data,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)\)", text)
    picture = base64.b64decode(data)
    assert picture.startswith(PNG)
    assert len(data) < 100_000
    assert "How to read this" in text
    assert "- Two-tower model, discovery items: ahead of the best baseline, " in text
    assert "- Users without a vector: 1;" in text
    assert "not among them: 1;" in text
    assert f"- Users with a positive event on the day: {run[1].num_users:,}, with" in text
    for label in ("| 1-9 |", "| 10-29 |", "| activity | users |", "\n| 200 | ", "\n| 2026-03-01 | "):
        assert label in text


def test_a_scope_without_users_is_reported_and_not_drawn(run: Run) -> None:
    model, truth, counts, detail, total = run
    without = total.filter(pa.array([row["scope"] != "repeat" for row in total.to_pylist()]))
    text = report((model, truth, counts, detail, without))
    assert (
        "Items that the user interacted with in the window already: no known user has such a known item to find, so there is no number."
        in text
    )
    assert hit_rate_png(without) != hit_rate_png(total)


def segments(*rows: tuple[str, str], hit_rate: float = 0.25) -> pa.Table:
    numbers = {"users": 1200, "hits": 3, "truth_count": 12, "hit_rate": hit_rate, "ci_low": 0.125, "ci_high": 0.5}
    return pa.Table.from_pylist([{"segment": s, "value": v, **numbers} for s, v in rows], schema=SEGMENT_SCHEMA)


def test_every_table_has_a_title_and_every_bullet_a_subject(run: Run) -> None:
    lines = report(run).splitlines()
    above = [lines[at - 2 : at] for at, line in enumerate(lines[:-1]) if lines[at + 1].startswith("| --- |") and line[0] == "|"]
    assert len(above) == 1 + 2 * 5 + 1 + 1 + 1, "headline, two of each of five scopes, a segment, the lists, the days"
    assert [title for title, blank in above if not re.fullmatch(r"\*\*.+\*\*", title) or blank] == []
    bullets = [line for line in lines if line.startswith("- ")]
    subjects = "(Two-tower model, \\w+ items( of all users)?|Two-tower model, segment .+|Users .+|Candidates):"
    assert [line for line in bullets if not re.match(f"- {subjects}", line)] == []


def test_each_segment_has_a_table() -> None:
    rows = [("age_group", "25-34"), ("age_group", "a|b"), ("tenure", "first-time")]
    text = segment_section({"merged": segments(*rows, hit_rate=0.5), "model": segments(*rows)}, 200)
    assert "hit_rate@200 of the merged list and the two-tower model." in text
    assert "| age\\_group" not in text
    head = "| age group | users | items to find | merged list | two-tower model |\n| --- | ---: | ---: | ---: | ---: |\n"
    assert f"**By age group, hit_rate@200**\n\n{head}" in text
    assert "| 25-34 | 1,200 | 12 | 0.500 [0.125, 0.500] | 0.250 [0.125, 0.500] |\n| a\\|b | 1,200 |" in text
    assert text.count("| --- |") == 2
    assert segment_report("2026-03-01", {"model": segments(("tenure", "first-time"))}, 5).startswith(
        "# Hit rate by segment on 2026-03-01\n\n## By"
    )
    assert "No segment has users." in segment_section({"model": segments()}, 200)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a\\|b"),
        ("two\nlines  here", "two lines here"),
        ("*x* `y` [z](u)", "\\*x\\* \\`y\\` \\[z\\](u)"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("x" * 61, "x" * 59 + "…"),
        ("", ""),
    ],
)
def test_cells_escape_markdown_marks(text: str, shown: str) -> None:
    assert cell(text) == shown


POPULARITY = ItemPopularity(pa.array(["a", "b", "c"]), np.array([6, 2, 0]))
QUALITY = pa.Table.from_pylist(
    [{"k": 5, "users": 2469, "coverage": 0.0625, "popularity_bias": 0.5, "novelty": 9.125, "mean_length": 5.0}],
    schema=QUALITY_SCHEMA,
)


def test_list_section_with_and_without_an_earlier_day() -> None:
    overlap = pa.Table.from_pylist([{"k": 5, "users": 31, "kept": 0.75, "jaccard": 0.6}], schema=OVERLAP_SCHEMA)
    text = list_section(ListFacts(QUALITY, overlap, "2026-02-27", POPULARITY))
    assert "| 5 | 6.25% | 50.0% | 9.12 | 75.0% | 0.600 |" in text
    assert "lists for 2,469 evaluated users" in text
    assert (
        "among the 1 most popular items (1% of the items with events in the window); these have 75.0% of the window's events"
        in text
    )
    assert "Kept since 2026-02-27: " in text
    assert "over 31 users with a list on both days" in text
    no_overlap = OVERLAP_SCHEMA.empty_table()
    for day in (None, "2026-02-27"):
        alone = list_section(ListFacts(QUALITY, no_overlap, day, POPULARITY))
        assert "| 5 | 6.25% | 50.0% | 9.12 | - | - |" in alone
        assert "There is no earlier evaluation day to compare the lists with." in alone
    empty = ListFacts(QUALITY_SCHEMA.empty_table(), no_overlap, None, POPULARITY)
    assert list_section(empty) == "## The lists\n\nNo evaluated user has a list, so there is nothing to describe."


def test_trend_section_has_a_row_per_day_newest_first_and_shows_gaps() -> None:
    days = [
        ("2026-03-01", [total_row(hit_rate=0.25), total_row("popularity", hit_rate=0.125), total_row("merged", hit_rate=0.75)]),
        (
            "2026-03-02",
            [total_row(hit_rate=0.5), total_row(scope="discovery", hit_rate=0.25), total_row(scope="unseen", hit_rate=0.125)],
        ),
    ]
    trend = trend_table([(day, pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)) for day, rows in days], 10)
    assert trend_section(trend, 10).splitlines()[-4:] == [
        "| day | users | **merged list** | **two-tower model** | **two-tower model**, discovery | **two-tower model**, unseen "
        "| popularity |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 2026-03-02 | 40 | - | 0.500 [0.450, 0.550] | 0.250 [0.200, 0.300] | 0.125 [0.075, 0.175] | - |",
        "| 2026-03-01 | 40 | 0.750 [0.700, 0.800] | 0.250 [0.200, 0.300] | - | - | 0.1250 |",
    ]
    assert trend_section(trend.slice(0, 0), 10).endswith("so there is no trend.")


def row(scorer: str, scope: str, rate: float, population: str = "warm", k: int = 200) -> dict[str, Any]:
    numbers = dict.fromkeys(TOTAL_SCHEMA.names, 0)
    text = {"scorer": scorer, "scope": scope, "population": population}
    return {**numbers, **text, "k": k, "hit_rate": rate, "ci_low": rate - 0.01, "ci_high": rate + 0.01, "truth_count": 1234}


def gain(scorer: str, against: str, scope: Scope, found: float, low: float, high: float) -> Gain:
    return Gain(scorer, against, scope, 200, found, low, high, counted_population(scope))


ROWS = [
    row("model", "all", 0.296),
    row("model", "all", 0.1, k=10),
    row("model", "unseen", 0.132),
    row("model", "cold", 0.04, "all"),
    row("model", "cold", 0.05, "not_warm"),
    row("merged", "all", 0.474),
    {**row("merged", "all", 0.3, "all"), "truth_count": 2468},
    row("recent_popularity", "all", 0.32, "all"),
    row("own_history_all", "all", 0.452),
    row("popularity", "unseen", 0.108),
    row("ease", "unseen", 0.12),
    row("category_popularity", "cold", 0.01, "all"),
]
GAINS = [
    gain("model", "own_history_all", Scope.ALL, -0.156, -0.17, -0.14),
    gain("model", "ease", Scope.UNSEEN, 0.012, -0.002, 0.026),
    gain("model", "category_popularity", Scope.COLD, 0.03, 0.01, 0.05),
]
MERGED = [
    gain("merged", "own_history_all", Scope.ALL, 0.022, 0.014, 0.03),
    Gain("merged", "recent_popularity", Scope.ALL, 200, -0.02, -0.03, -0.01, Population.ALL),
]
CHANNELS = [gain("merged", "merged_without_vectors", Scope.ALL, 0.002, -0.001, 0.005)]


def segments_of_both(*rows: tuple[str, int, float]) -> dict[str, pa.Table]:
    """Returns the segments of the merged list, and of the model, which finds nothing."""
    named = [dict(zip(("value", "truth_count", "hit_rate"), row, strict=True)) for row in rows]
    whole = [
        {**dict.fromkeys(SEGMENT_SCHEMA.names, 0), "segment": "activity", "ci_low": 0.1, "ci_high": 0.4, **row} for row in named
    ]
    model = [{**row, "hit_rate": 0.0} for row in whole]
    return {name: pa.Table.from_pylist(rows, schema=SEGMENT_SCHEMA) for name, rows in (("merged", whole), ("model", model))}


def total(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA)


def test_the_most_important_figure_comes_first() -> None:
    text = headline(
        total(ROWS), [*MERGED, *GAINS], CHANNELS, segments_of_both(("1-9", 200, 0.2), ("0", 40, 0.1), ("10-29", 300, 0.3))
    )
    title, _, *lines = text.splitlines()
    assert title == "**The figures of the day, the most important first**"
    assert lines[0] == "|  | hit_rate@200 | items to find | compared with | gain over the best baseline |"
    assert [line.split(" | ")[0].strip("| *") for line in lines[2:7]] == [
        "merged list, all items",
        "merged list, all users and items of the day, 50% of these not warm",
        "vectors alone, items new to the user, its own history left out",
        "vectors alone, all items: the figure of the reference solution",
        "vectors alone, cold items among themselves",
    ]
    assert lines[2].endswith("| own history, all days 0.452 | +0.0220 [+0.0140, +0.0300], ahead |")
    assert lines[3].endswith("| 2,468 | recent popularity 0.320 | -0.0200 [-0.0300, -0.0100], behind |")
    assert lines[4].endswith("| popularity 0.108, EASE 0.120 | +0.0120 [-0.0020, +0.0260], not distinguishable |")
    assert "**0.040 [0.030, 0.050]** | 1,234 | popularity by category 0.010 |" in lines[6]
    assert lines[8:] == [
        "Where it looks worst:",
        "",
        "- Two-tower model, all items: behind the best baseline, own history, all days, by -0.1560 [-0.1700, -0.1400] at k = 200.",
        "- The merged list would find nearly as much without the vectors: they are worth +0.0020 [-0.0010, +0.0050].",
        "- Merged list, segment activity 1-9: 0.200 [0.100, 0.400] of 200 items to find.",
    ]


def test_what_is_not_there_is_left_out() -> None:
    text = headline(total([row("model", "unseen", 0.132)]), [], [], segments_of_both())
    assert (
        "| **vectors alone, items new to the user, its own history left out** | **0.132 [0.122, 0.142]** | 1,234 | - | - |"
        in text
    )
    assert "worst" not in text
    harmful = [gain("merged", "merged_without_vectors", Scope.ALL, -0.01, -0.02, -0.001)]
    text = headline(total([row("model", "unseen", 0.132)]), [], harmful, segments_of_both())
    assert "- The merged list would find more without the vectors: they are worth -0.0100 [-0.0200, -0.0010]." in text
    assert headline(total([row("ease", "all", 0.3)]), [], [], segments_of_both()) == "No known user has a known item to find."
