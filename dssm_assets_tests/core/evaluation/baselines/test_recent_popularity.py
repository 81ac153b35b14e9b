"""Recent popularity: most events of the last days first."""

from __future__ import annotations

from dssm_assets_tests.core.evaluation.baselines.small_world import USERS, lists


def test_recent_popularity_by_hand() -> None:
    assert lists("recent_popularity", 3) == dict.fromkeys(USERS, "dca")
