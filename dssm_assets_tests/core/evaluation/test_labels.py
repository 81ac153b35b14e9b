"""One table of names, colours and order for scorers and scopes."""

from __future__ import annotations

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.evaluation.baselines.registry import BASELINES
from dssm_assets.core.evaluation.labels import BASELINE_COLORS, SCOPES, SCORERS, Spans, color_of, display_name, scorers_in_order
from dssm_assets.core.evaluation.scopes import Scope
from dssm_assets_tests import worlds


def test_every_scorer_has_its_own_name_and_colour() -> None:
    assert tuple(SCORERS) == ("model", "merged", *BASELINES, "category_popularity")
    assert len({label.name for label in SCORERS.values()}) == len({label.color for label in SCORERS.values()}) == len(SCORERS)
    assert len(BASELINES) <= len(BASELINE_COLORS)


def test_every_scope_has_a_heading() -> None:
    assert tuple(SCOPES) == tuple(Scope)
    assert len({label.title for label in SCOPES.values()}) == len(Scope)


def test_scorers_outside_the_table_follow_by_name() -> None:
    assert scorers_in_order(["zeta", "popularity", "alpha_one", "model"]) == ["model", "popularity", "alpha_one", "zeta"]
    assert (display_name("alpha_one"), color_of("alpha_one")) == ("alpha one", "#999999")


def test_names_of_a_day_tell_how_many_days_their_scorers_read() -> None:
    config = parse_config(
        worlds.merged(worlds.CONFIG, {"evaluation": {"recent_days": 7}})
    )  # from January 1st, window of 6 days
    spans = Spans.from_config(config, "2024-01-12")
    assert spans == Spans(window=6, recent=6, history=11)
    assert [display_name(name, spans) for name in ("model", "popularity", "recent_popularity", "ease")] == [
        "two-tower model",
        "popularity, 6 days",
        "recent popularity, 6 days",
        "EASE",
    ]
    assert display_name("own_history_window", spans) == "own history, 6 days"
    assert display_name("own_history_all", spans) == "own history, all 11 days"


def test_recent_popularity_of_the_whole_window_is_not_shown_beside_popularity() -> None:
    names = ["recent_popularity", "model", "popularity"]
    assert scorers_in_order(names, Spans(window=6, recent=6, history=11)) == ["model", "popularity"]
    assert scorers_in_order(names, Spans(window=7, recent=6, history=11)) == ["model", "popularity", "recent_popularity"]
    assert scorers_in_order(names[:2], Spans(window=6, recent=6, history=11)) == ["model", "recent_popularity"]
    short = parse_config(worlds.merged(worlds.CONFIG, {"window": {"history_days": 8}, "evaluation": {"recent_days": 1}}))
    spans = Spans.from_config(short, "2024-01-12")
    assert display_name("own_history_all", spans) == "own history, all 8 days"
    assert display_name("recent_popularity", spans) == "recent popularity, 1 day"
