"""Which days of which assets an evaluation day needs, worked out by hand for a window of 6 days from January 1st."""

from __future__ import annotations

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.run_plan import needed_days

START, WINDOW = "2024-01-01", 6


def needed(*names, ds="2024-01-12"):
    return needed_days(all_rows(), names, ds, START, WINDOW)


def test_hit_rate_needs_logs_from_the_start_samples_of_the_window_and_features_of_the_day_before():
    found = needed("total_hit_rate")
    of_day, of_window = ("2024-01-06", "2024-01-12"), ("2024-01-06", "2024-01-11")
    features = ("2024-01-05", "2024-01-11")
    assert found.daily == {
        **dict.fromkeys(["user_table", "item_table", "behavior_table", "behavior"], (START, "2024-01-12")),
        **dict.fromkeys(["user_history", "user_history_fg"], (START, "2024-01-11")),
        **dict.fromkeys(["sample", "sample_fg", "positive_sample"], of_day),
        **dict.fromkeys(["numeric_value_counts", "category_value_counts"], of_window),
        **dict.fromkeys(["user_activity", "item_activity", "pair_activity", "user_preferences"], features),
        **dict.fromkeys(["user_all_feature", "item_all_feature", "user_features_fg", "item_features_fg"], features),
    }
    job = job_assets(all_rows(), TRAIN_AND_EVALUATE)
    assert found.windowed == [name for name in job if name != "experiments"]


def test_bundle_also_needs_the_features_of_the_day_itself():
    found = needed(*job_assets(all_rows(), PUBLISH))
    assert found.daily["user_features_fg"] == found.daily["item_all_feature"] == ("2024-01-05", "2024-01-12")
    assert found.daily["user_history_fg"] == (START, "2024-01-12")
    assert found.windowed[-1] == "serving_bundle"


def test_model_needs_no_sample_of_the_evaluation_day():
    found = needed("dssm_model")
    assert found.daily["sample_fg"] == ("2024-01-06", "2024-01-11")
    assert found.daily["user_features_fg"] == ("2024-01-05", "2024-01-11")
    assert found.daily["behavior"] == (START, "2024-01-11")
    assert "ground_truth" not in found.windowed


def test_daily_table_needs_only_what_it_reads():
    found = needed("user_activity", ds="2024-01-04")
    assert found.windowed == []
    assert found.daily == {
        "user_activity": ("2024-01-04", "2024-01-04"),
        **dict.fromkeys(["behavior", "behavior_table", "item_table", "user_table"], (START, "2024-01-04")),
    }


def test_nothing_before_the_calendar_is_needed():
    assert needed("sample_fg", ds=START).daily.keys() == {
        "sample_fg",
        "sample",
        "behavior",
        "behavior_table",
        "user_table",
        "item_table",
    }
