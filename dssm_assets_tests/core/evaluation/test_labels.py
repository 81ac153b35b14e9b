"""One table of names, colours and order for scorers and scopes."""

from __future__ import annotations

from dssm_assets.core.evaluation.baselines.registry import BASELINE_NAMES
from dssm_assets.core.evaluation.labels import BASELINE_COLORS, SCOPES, SCORERS, color_of, display_name, scorers_in_order
from dssm_assets.core.evaluation.scopes import Scope


def test_every_scorer_has_its_own_name_and_colour() -> None:
    assert tuple(SCORERS) == ("model", "merged", *BASELINE_NAMES, "category_popularity")
    assert len({label.name for label in SCORERS.values()}) == len({label.color for label in SCORERS.values()}) == len(SCORERS)
    assert len(BASELINE_NAMES) <= len(BASELINE_COLORS)


def test_every_scope_has_a_heading() -> None:
    assert tuple(SCOPES) == tuple(Scope)
    assert len({label.title for label in SCOPES.values()}) == len(Scope)


def test_scorers_outside_the_table_follow_by_name() -> None:
    assert scorers_in_order(["zeta", "popularity", "alpha_one", "model"]) == ["model", "popularity", "alpha_one", "zeta"]
    assert (display_name("alpha_one"), color_of("alpha_one")) == ("alpha one", "#999999")
