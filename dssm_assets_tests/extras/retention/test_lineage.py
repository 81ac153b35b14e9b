"""What was made from rows of the users of a request, as the digests in manifests tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dssm_assets.extras.retention.lineage import Lineage
from dssm_assets.storage.manifest import Column, Erasure, Manifest
from dssm_assets.storage.partitions import PartitionStore

DAY, EARLIER = "2024-01-02", "2024-01-01"


@pytest.fixture
def store(tmp_path: Path) -> PartitionStore:
    return PartitionStore(str(tmp_path))


def put(store: PartitionStore, asset: str, inputs: dict[str, str], *, ds: str = DAY, is_of_users: bool = False) -> Manifest:
    columns = (Column("user_id", "string", ""),) if is_of_users else ()
    with store.staging() as folder:
        path = folder / "rows"
        path.write_text(f"{asset} {ds} {inputs}")
        return store.publish(asset=asset, ds=ds, staged=[(path, 1)], columns=columns, inputs=inputs)


def test_traces_are_those_of_what_was_read(store: PartitionStore) -> None:
    log, profiles = (put(store, asset, {}, is_of_users=True) for asset in ("behavior", "user_features_fg"))
    put(store, "item_table", {})
    erasures = (Erasure("before", "first", 1, 1), Erasure("now", "second", 1, 1))
    erased = {one.key: replace(one, erasures=erasures) for one in (log, profiles)}
    made = {
        "of_first": ({log.key: "first"}, True),  # it had the rows of both requests
        "of_second": ({log.key: "second"}, True),
        "made_since": ({log.key: log.digest}, False),
        "of_another_content": ({log.key: "another"}, True),
        "of_what_is_gone": ({f"behavior/{EARLIER}": "gone"}, True),
        "of_items": ({f"item_table/{EARLIER}": "gone"}, False),
        "of_profiles": ({profiles.key: "second"}, False),
    }
    for asset, (inputs, _) in made.items():
        put(store, asset, inputs)
    first = store.need("of_first", DAY)
    put(store, "after", {first.key: first.digest})
    put(store, "outdated", {first.key: "another"})
    found = Lineage({"": store}, erased, "now", "").list_made_from_them()
    expected = [*(asset for asset, (_, is_so) in made.items() if is_so), "after", "outdated"]
    assert found == sorted(f"{asset}/{DAY}" for asset in expected)
    only_before = {log.key: replace(log, erasures=erasures[:1])}
    assert f"of_first/{DAY}" not in Lineage({"": store}, only_before, "now", "").list_made_from_them()


def test_what_reaches_back_is_made_from_forgotten_days(store: PartitionStore) -> None:
    old = put(store, "behavior", {}, ds=EARLIER, is_of_users=True)
    state = put(store, "user_activity", {old.key: old.digest}, is_of_users=True)
    put(store, "user_all_feature", {state.key: state.digest}, is_of_users=True)
    put(store, "behavior", {}, is_of_users=True)
    assert Lineage({"": store}, {}, "now", DAY).list_reaching_back() == ["user_activity", "user_all_feature"]
