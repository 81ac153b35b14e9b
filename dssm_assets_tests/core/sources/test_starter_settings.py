"""Settings of logs with given habits, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.sources.log_habits import LogHabits
from dssm_assets.core.sources.starter_settings import Line, StarterSettings, choose_settings, validation_days, window_days

SHOP = LogHabits(
    events=900_000,
    events_per_day=2500,
    history_events=80,
    long_history_events=340,
    known_frac=0.9,
    repeat_frac=0.4,
    young_frac=0.0,
    new_per_day=1400,
    half_life_days=7.0,
)


def _values(lines: tuple[Line, ...]) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load("\n".join(f"{line.key}: {line.value}" for line in lines))
    return found


def _settings(habits: LogHabits, days: int = 400) -> StarterSettings:
    return choose_settings(habits, days, items=5000, code="item_code")


def test_window_holds_enough_events() -> None:
    assert window_days(SHOP, 400) == 80  # 200,000 / 2,500
    assert window_days(SHOP, 60) == 59
    assert window_days(replace(SHOP, events_per_day=1e6), 400) == 30
    assert window_days(replace(SHOP, events_per_day=10), 2000) == 366
    assert window_days(replace(SHOP, young_frac=0.5), 400) == 30
    assert window_days(SHOP, 2) == 1


def test_validation_days_hold_enough_events_and_leave_most_of_the_window() -> None:
    assert validation_days(replace(SHOP, events_per_day=600), 80) == 5
    assert validation_days(replace(SHOP, events_per_day=600), 12) == 2
    assert validation_days(SHOP, 3) == 0


def test_every_choice_is_valid_and_has_a_reason() -> None:
    for habits in (SHOP, replace(SHOP, known_frac=0.1, repeat_frac=0.0), replace(SHOP, young_frac=0.9, half_life_days=0.25)):
        found = _settings(habits)
        Model.model_validate(_values(found.model))
        Training.model_validate(_values(found.training))
        assert all(line.reason for section in (found.window, found.model, found.training, found.evaluation) for line in section)


def test_repeated_items_are_no_negatives() -> None:
    assert _values(_settings(SHOP).model)["user_positive_mask"] is True
    assert "user_positive_mask" not in _values(_settings(replace(SHOP, repeat_frac=0.01)).model)


def test_new_items_are_the_targets_if_there_are_enough() -> None:
    assert _values(_settings(SHOP).model)["targets"] == "new"
    # A window of 80 days validates on 2: 49 events a day are too few.
    assert "targets" not in _values(_settings(replace(SHOP, new_per_day=49)).model)


@pytest.mark.parametrize(("long_past", "length"), [(3, 20), (340, 340), (9000, 500)])
def test_histories_are_as_long_as_those_of_long_pasts(long_past: int, length: int) -> None:
    model = _values(_settings(replace(SHOP, long_history_events=long_past)).model)
    assert model["history_length"] == length
    assert Model.model_validate(model).history_poolings[0].length == length


def test_short_lived_popularity_is_compared_with_short_lived_popularity() -> None:
    assert _values(_settings(SHOP).evaluation) == {"recent_days": 14}
    assert _values(_settings(replace(SHOP, half_life_days=0.25)).evaluation) == {"recent_days": 1}
    assert _values(_settings(replace(SHOP, half_life_days=None)).evaluation) == {"recent_days": 7}


def test_vectors_are_compact_and_the_prior_needs_validation_days() -> None:
    found = _settings(SHOP)
    assert _values(found.model)["output_dim"] == 128
    assert (_values(found.model)["prior"], _values(found.training)["validation_days"]) == (True, 2)
    assert "prior" not in _values(_settings(SHOP, days=4).model)  # a window of 3 days spares none
