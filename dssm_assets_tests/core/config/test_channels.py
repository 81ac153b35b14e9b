"""The section `channels`."""

from __future__ import annotations

from typing import Any

from dssm_assets.core.config.channels import ChannelName, Channels


def test_all_channels_propose_by_default_and_own_history_twice_as_many() -> None:
    assert Channels(depth=40).depths == {
        ChannelName.VECTORS: 40,
        ChannelName.OWN_HISTORY: 80,
        ChannelName.ITEM_TO_ITEM: 40,
        ChannelName.RECENT_POPULARITY: 40,
    }


def test_a_quota_replaces_the_depth_and_the_order_is_kept() -> None:
    sources: Any = [{"name": "own_history", "quota": 7}, {"name": "vectors"}]
    assert list(Channels(sources=sources).depths.items()) == [(ChannelName.OWN_HISTORY, 7), (ChannelName.VECTORS, 500)]
