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
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.baselines.registry import extra_baselines
from dssm_assets.core.evaluation.charts import hit_rate_png, loss_curve_png
from dssm_assets.core.evaluation.detail import hit_rate_detail
from dssm_assets.core.evaluation.hits import HitCounts, count_hits
from dssm_assets.core.evaluation.interactions import read_interactions
from dssm_assets.core.evaluation.labels import SCORERS
from dssm_assets.core.evaluation.list_quality import LISTS, OVERLAP_SCHEMA, QUALITY_SCHEMA, list_quality
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA, Gain, gains_over_best, total_hit_rate, trend_table
from dssm_assets.core.evaluation.report import (
    cell,
    channel_section,
    list_facts,
    list_section,
    render_report,
    report_facts,
    segment_report,
    segment_section,
    trend_section,
)
from dssm_assets.core.evaluation.scopes import Population, Scope
from dssm_assets.core.evaluation.scorer import InteractedItems, ModelScorer, model_scorer
from dssm_assets.core.evaluation.segments import SEGMENT_SCHEMA, Cuts, ItemPopularity, label_activity, segment_table
from dssm_assets.core.evaluation.truth import Truth, ground_truth, read_truth
from dssm_assets_tests.core.evaluation.worlds import events_table, fitted_scorers, pairs_table, total_row

SETTINGS = Evaluation(bootstrap_samples=200)
PNG = b"\x89PNG\r\n\x1a\n"
Run = tuple[ModelScorer, Truth, HitCounts, pa.Table, pa.Table]


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
    truth = read_truth(ground_truth(pairs_table(day), pairs_table(window)), item_vectors.column("item_id"))
    noisy = preference + rng.normal(size=preference.shape) * 0.5
    model = model_scorer(item_vectors, vectors(noisy, "user", 3), truth.user_ids, Similarity.INNER_PRODUCT)
    seen = read_interactions(events, truth.user_ids, model.item_ids)
    scorers = [model, *fitted_scorers(seen, seen, seen, SETTINGS)]
    counts = count_hits(scorers, truth, InteractedItems(*[seen.exclusions(truth.num_users)] * 2), SETTINGS.k)
    events_of_user = np.bincount(seen.user_index, seen.count, truth.num_users)[: truth.num_users]
    activity = label_activity(events_of_user, SETTINGS.segments[0].activity_edges)
    detail = hit_rate_detail(model, truth, Cuts({"activity": activity}), k=SETTINGS.k[-1])
    return model, truth, counts, detail, total_hit_rate(counts.table, SETTINGS.k, SETTINGS.bootstrap_samples, 3)


def report(run: Run, **options: Any) -> str:
    model, truth, counts, detail, total = run
    popularity = ItemPopularity(model.item_ids, np.arange(len(model.item_ids)))
    quality = list_quality(detail.select([LISTS]).to_batches(), popularity, SETTINGS.k)
    return render_report(
        day="2026-03-01",
        total=total,
        segments={"model": segment_table(detail, SETTINGS, seed=3)},
        gains=gains_over_best(counts.table, total, k=200, samples=200, seed=3),
        facts=report_facts(truth, model, counts),
        lists=list_facts(quality, OVERLAP_SCHEMA.empty_table(), None, popularity),
        trend=trend_table([("2026-03-01", total)], 200),
        **options,
    )


@pytest.mark.parametrize(("users", "sentence"), [(900, "a sample of 900 of these 2,000 users"), (2000, None)])
def test_channels_say_of_how_many_users_they_are(users: int, sentence: str | None) -> None:
    named = {"merged": 2000, "merged_without_vectors": users, "model": 2000}
    rows = [{**total_row(name, k=200), "users": counted} for name, counted in named.items()]
    gain = Gain("merged", "merged_without_vectors", Scope.ALL, Population.WARM, 200, 0.01, 0.0, 0.02)
    text = channel_section(pa.Table.from_pylist(rows, schema=TOTAL_SCHEMA), [gain])
    assert "| vectors |" in text and "+0.0100 [+0.0000, +0.0200]" in text
    assert ("sample" in text) is (sentence is not None) and (sentence or "") in text


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


def test_a_model_that_knows_the_preferences_finds_more_new_items_than_any_baseline(run: Run) -> None:
    rates = {
        r["scorer"]: r["hit_rate"]
        for r in run[4].to_pylist()
        if r["scope"] == "discovery" and r["population"] == "warm" and r["k"] == 50
    }
    assert set(rates) == set(SCORERS) - {"merged", "category_popularity"} - set(extra_baselines())
    assert max(rates, key=lambda name: rates[name]) == "model"


def test_report_has_every_number_and_one_small_picture(run: Run) -> None:
    text = report(run)
    rows = [row for row in run[4].to_pylist() if row["population"] == "warm"]
    assert len(rows) == 7 * 5 * 4
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


def test_report_and_charts_are_deterministic_and_without_metadata(run: Run) -> None:
    assert report(run) == report(run)
    assert b"tEXt" not in hit_rate_png(run[4])
    losses = (5 * np.exp(-np.arange(400) / 100) + 1).tolist()
    assert loss_curve_png(losses) == loss_curve_png(losses)
    assert loss_curve_png(losses) != loss_curve_png(losses[:-1])
    assert b"tEXt" not in loss_curve_png(losses)


def test_a_scope_without_users_is_reported_and_not_drawn(run: Run) -> None:
    model, truth, counts, detail, total = run
    without = total.filter(pa.array([row["scope"] != "repeat" for row in total.to_pylist()]))
    text = report((model, truth, counts, detail, without))
    assert (
        "Items that the user interacted with in the window already: no known user has such a known item to find, so there is no number."
        in text
    )
    assert hit_rate_png(without) != hit_rate_png(total)
    with pytest.raises(InputError, match="rows of population warm"):
        hit_rate_png(total.slice(0, 0))


def test_loss_curves_of_one_step_are_drawn_and_of_broken_runs_refused() -> None:
    assert loss_curve_png([2.5]).startswith(PNG)
    with pytest.raises(InputError, match="2 steps, 1 of them not finite"):
        loss_curve_png([1.0, float("nan")])
    with pytest.raises(InputError, match="0 steps"):
        loss_curve_png([])


def segments(*rows: tuple[str, str], hit_rate: float = 0.25) -> pa.Table:
    numbers = {"users": 1200, "hits": 3, "truth_count": 12, "hit_rate": hit_rate, "ci_low": 0.125, "ci_high": 0.5}
    return pa.Table.from_pylist([{"segment": s, "value": v, **numbers} for s, v in rows], schema=SEGMENT_SCHEMA)


def test_every_table_has_a_title_and_every_bullet_a_subject(run: Run) -> None:
    lines = report(run).splitlines()
    above = [lines[at - 2 : at] for at, line in enumerate(lines[:-1]) if lines[at + 1].startswith("| --- |") and line[0] == "|"]
    assert len(above) == 1 + 2 * 5 + 1 + 1 + 1, "headline, two of each of five scopes, a segment, the lists, the days"
    assert [title for title, blank in above if not re.fullmatch(r"\*\*.+\*\*", title) or blank] == []
    bullets = [line for line in lines if line.startswith("- ")]
    subjects = "(Two-tower model, \\w+ items|Two-tower model, segment .+|Users .+|Candidates):"
    assert [line for line in bullets if not re.match(f"- {subjects}", line)] == []


def test_each_segment_has_a_table() -> None:
    rows = [("age_group", "25-34"), ("age_group", "a|b"), ("tenure", "new")]
    text = segment_section({"merged": segments(*rows, hit_rate=0.5), "model": segments(*rows)}, 200)
    assert "hit_rate@200 of the merged list and the two-tower model." in text
    assert "| age\\_group" not in text
    head = "| age group | users | items to find | merged list | two-tower model |\n| --- | ---: | ---: | ---: | ---: |\n"
    assert f"**By age group, hit_rate@200**\n\n{head}" in text
    assert "| 25-34 | 1,200 | 12 | 0.500 [0.125, 0.500] | 0.250 [0.125, 0.500] |\n| a\\|b | 1,200 |" in text
    assert text.count("| --- |") == 2
    assert segment_report("2026-03-01", {"model": segments(("tenure", "new"))}, 5).startswith(
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
    text = list_section(list_facts(QUALITY, overlap, "2026-02-27", POPULARITY))
    assert "| 5 | 6.25% | 50.0% | 9.12 | 75.0% | 0.600 |" in text
    assert "lists for 2,469 evaluated users" in text
    assert (
        "among the 1 most popular items (1% of the items with events in the window), which have 75.0% of the window's events"
        in text
    )
    assert "Kept since 2026-02-27: " in text
    assert "over 31 users with a list on both days" in text
    no_overlap = OVERLAP_SCHEMA.empty_table()
    for day in (None, "2026-02-27"):
        alone = list_section(list_facts(QUALITY, no_overlap, day, POPULARITY))
        assert "| 5 | 6.25% | 50.0% | 9.12 | - | - |" in alone
        assert "There is no earlier evaluation day to compare the lists with." in alone
    empty = list_facts(QUALITY_SCHEMA.empty_table(), no_overlap, None, POPULARITY)
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
