"""Metadata of hit_rate_detail and total_hit_rate in the UI: segments, properties of the lists, the trend."""

import math
from collections import Counter

import dagster as dg
import pytest

from dssm_assets_tests import worlds

SEGMENTS = [
    {"name": "town", "by": "city"},
    {"name": "tenure", "by": "tenure"},
    {"name": "items", "by": "item_popularity"},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


@pytest.fixture(scope="module")
def metadata(world, tmp_path_factory):
    """Returns asset -> metadata, evaluated again with segments of every kind."""
    loaded = world.copy(tmp_path_factory.mktemp("segments") / "world", {"evaluation": {"segments": SEGMENTS}})
    instance = dg.DagsterInstance.ephemeral()
    names = ["hit_counts", "hit_rate_detail", "total_hit_rate"]
    worlds.materialize(loaded, names, [worlds.EVALUATION_DAY], instance)
    return {name: read_metadata(instance, name) for name in names}


def read_metadata(instance, name):
    (record,) = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
    return record.asset_materialization.metadata


@pytest.mark.parametrize("name", ["hit_rate_detail", "total_hit_rate"])
def test_segments_are_a_table_and_a_chart_on_both_assets(metadata, name):
    # city0 has the users of even number, city1 those of odd number, a7 has no row: 6, 5 and 1 of 12, with 3 items each.
    counts = {(row["segment"], row["value"]): (row["users"], row["hits"]) for row in metadata[name]["segments"].value}
    scorers = {row["scorer"] for row in metadata[name]["segments"].value}
    assert scorers == ({"model"} if name == "hit_rate_detail" else {"merged", "model"})
    assert {value: count for (segment, value), count in counts.items() if segment == "town"} == {
        "city0": (6, 18),
        "city1": (5, 15),
        "(missing)": (1, 3),
    }
    assert counts["tenure", "returning"] == (12, 36)
    # 20 items have an event: ceil(20 / 100) = 1 is the head, ceil(20 / 10) - 1 = 1 comes next, none is unseen.
    tiers = {value: count for (segment, value), count in counts.items() if segment == "items"}
    assert sum(hits for _, hits in tiers.values()) == 36
    assert "unseen in the window" not in tiers
    assert "| city0 | 6 | 18 | 1.000 [1.000, 1.000] |" in metadata[name]["report"].value
    assert metadata[name]["hit_rate_by_segment"].value.startswith("![hit_rate_by_segment](data:image/png;base64,iVBOR")


def test_properties_of_the_lists_are_metadata(metadata):
    # Every list of 10 is the own group, so both groups' 20 items are shown. The most popular item is one of group a, which
    # is in the lists of 8 of 12 users: 8 of 120 positions.
    found = metadata["total_hit_rate"]
    assert found["coverage@10 of the vectors"] == dg.FloatMetadataValue(1.0)
    (quality,) = found["lists@10"].value
    assert quality["popularity_bias"] == pytest.approx(8 / 120, abs=1e-5)
    window = range(len(worlds.DAYS) - 1 - worlds.WINDOW_DAYS, len(worlds.DAYS) - 1)
    counted = Counter(item for day in window for user in worlds.users() for item in worlds.bought(user, day))
    assert max(counted, key=lambda item: counted[item]).startswith("a_")
    bits = {item: -math.log2((count + 1) / (12 * 3 * worlds.WINDOW_DAYS + 20)) for item, count in counted.items()}
    places = [bits[item] for user in worlds.users() for item in counted if item[0] == user[0]]
    assert quality["novelty"] == pytest.approx(sum(places) / 120, abs=1e-4)
    assert "kept_since_day_before@10" not in found
