"""One table of names, colours and order for scorers and scopes."""

from __future__ import annotations

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.evaluation.labels import BASELINE_COLORS, SCOPES, SCORERS, Spans, color_of, display_name, scorers_in_order
from dssm_assets.core.names import BASELINES, Scope
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


def test_names_of_a_day_tell_how_far_back_their_scorers_read() -> None:
    spans = Spans.from_config(parse_config(worlds.CONFIG), "2024-01-12", 6.0)  # from January 1st, window of 6 days
    assert spans == Spans(window=6, history=11, recent_hours=6.0)
    assert [display_name(name, spans) for name in ("model", "popularity", "recent_popularity", "ease")] == [
        "two-tower model",
        "popularity, 6 days",
        "popularity, half-life 6 h",
        "EASE",
    ]
    assert display_name("own_history_window", spans) == "own history, 6 days"
    assert display_name("own_history_all", spans) == "own history, all 11 days"
    short = parse_config(worlds.merged(worlds.CONFIG, {"window": {"history_days": 8}}))
    spans = Spans.from_config(short, "2024-01-12", 72.0)
    assert display_name("own_history_all", spans) == "own history, all 8 days"
    assert display_name("recent_popularity", spans) == "popularity, half-life 3 d"
