"""The merged list: log-odds by hand, one user as among others, parts of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.channel import OWN_AGE, OWN_EVENTS, RECENT_EVENTS, Float64Array
from dssm_assets.core.channels.merge import (
    DEFAULT_WEIGHTS,
    IS_OWN_ITEM,
    RANK_OF_VECTORS,
    SIGNALS,
    BlockOfUsers,
    ChannelScorer,
    Merge,
    MergedScorer,
    Signal,
    Term,
    channel_scorers,
    default_merges,
    find_candidates,
    rank_candidates,
    terms_of,
    unite_lists,
)
from dssm_assets.core.config.channels import ChannelName
from dssm_assets_tests.core.channels import worlds

BOTH = np.array([0, 1])
NAMES = tuple(ChannelName)


AGE = Signal(ChannelName.OWN_HISTORY, OWN_AGE)
EVENTS = Signal(ChannelName.OWN_HISTORY, OWN_EVENTS)
RECENT = Signal(ChannelName.RECENT_POPULARITY, RECENT_EVENTS)


def scorer(weights: dict[Term, float]) -> MergedScorer:
    """Returns the merge of all channels whose weights are 0 except for the given ones."""
    given = dict.fromkeys(terms_of(NAMES), 0.0) | weights
    assert len(given) == len(terms_of(NAMES))
    return MergedScorer(Merge("merged", NAMES, given, -1.0), BlockOfUsers(worlds.channels()), worlds.shared().recent_order)


def ranked(merged: MergedScorer, users: IntArray, k: int) -> tuple[IntArray, Float64Array]:
    found = find_candidates(merged.users.channels, users)
    return rank_candidates(merged.merge, found.items, found.signals, merged.fill_order, k)[:2]


def test_terms_are_signals_squares_and_products_that_say_something_new() -> None:
    terms = terms_of(NAMES)
    assert {signal.channel for signal in SIGNALS} == set(ChannelName)
    # Eleven signals and their 66 products, without those of is_own with itself and the three other signals of own items.
    assert len(terms) == len(set(terms)) == 11 + 66 - 4
    assert Term(IS_OWN_ITEM, EVENTS) not in terms
    assert Term(EVENTS, EVENTS) in terms
    assert terms_of(NAMES[::-1]) == terms
    assert set(DEFAULT_WEIGHTS) < set(terms)


@given(st.lists(st.lists(st.permutations(range(6)), min_size=1, max_size=3), min_size=2, max_size=2), st.integers(0, 6))
def test_places_equal_a_search_of_each_list(lists: list[list[list[int]]], length: int) -> None:
    users = min(map(len, lists))
    first, second = (
        [one[:cut] + [-1] * (6 - cut) for one in side[:users]] for side, cut in zip(lists, (length, 3), strict=True)
    )
    united, positions = unite_lists([np.array(first), np.array(second)])
    for user in range(users):
        items = [item for item in united[user].tolist() if item >= 0]
        assert items == sorted({*first[user], *second[user]} - {-1})
        for channel, side in enumerate((first, second)):
            expected = [side[user].index(item) if item in side[user] else -1 for item in items]
            assert positions[channel, user, : len(items)].tolist() == expected


def test_log_odds_by_hand() -> None:
    rank, is_own, events = Term(RANK_OF_VECTORS), Term(IS_OWN_ITEM), Term(EVENTS)
    merged = scorer({rank: 2.0, Term(RANK_OF_VECTORS, IS_OWN_ITEM): -1.0, is_own: 1.0, events: 0.5})
    lists, odds = ranked(merged, BOTH, 6)
    # User 0: item 5 -1 + 2 ln 4; item 0 -1 + (2 - 1) ln 2 + 1 + .5 ln 3; item 1 -1 + 1; item 2 -1 + 2 ln(4/3); 3, 4: -1.
    assert lists[0].tolist() == [5, 0, 1, 2, 3, 4]
    assert odds[0] == pytest.approx([1.772589, 1.242453, 0.0, -0.424635, -1.0, -1.0], abs=1e-6)
    # User 1 has no own items and no neighbours: 4, 5, then 3, then the popular items that nothing proposed.
    assert lists[1].tolist() == [4, 5, 3, 1, 0, 2]
    assert odds[1] == pytest.approx([1.772589, 0.386294, -1, -1, -1, -1], abs=1e-6)


def test_products_and_squares_by_hand() -> None:
    # The user's own items: 0, ten days ago, nobody took it lately; 1, yesterday, one event lately. Of others, 3 has four, 4 two.
    merged = scorer({Term(AGE, RECENT): 5.0, Term(AGE, AGE): 1.0, Term(RECENT, RECENT): 2.0})
    lists, odds = ranked(merged, BOTH[:1], 4)
    assert lists[0].tolist() == [0, 3, 4, 1]
    assert odds[0] == pytest.approx(
        [-1 + np.log(10) ** 2, -1 + 2 * np.log(5) ** 2, -1 + 2 * np.log(3) ** 2, -1 + 2 * np.log(2) ** 2]
    )


def test_merges_side_by_side_have_the_lists_of_merges_of_their_own_channels() -> None:
    users = BlockOfUsers(worlds.channels())
    for merge in default_merges(NAMES):
        channels = tuple(channel for channel in worlds.channels() if channel.name in merge.channels)
        alone = MergedScorer(merge, BlockOfUsers(channels), worlds.shared().recent_order)
        together = MergedScorer(merge, users, worlds.shared().recent_order)
        for rows in (BOTH, BOTH[1:], BOTH[:1], BOTH):
            assert together.top_items(rows, 6).tolist() == alone.top_items(rows, 6).tolist(), (merge.name, rows)


@pytest.mark.parametrize("has_vector", [True, False])
def test_users_without_a_vector_are_ranked_without_vectors(has_vector: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The merge likes what nobody took lately, the one without vectors own items. User 0 has the own items 0 and 1, the neighbour 2, and
    # 3 and 4, which are popular lately; with a vector also 5. Of user 1 nothing is known: what is popular lately, in this order.
    monkeypatch.setattr(worlds, "NEAREST", np.array([[5, 0, 2] if has_vector else [-1] * 3, [-1] * 3]))
    weights = dict.fromkeys(terms_of(NAMES), 0.0) | {Term(RECENT): -1.0}
    others = dict.fromkeys(terms_of(NAMES[1:]), 0.0) | {Term(IS_OWN_ITEM): 1.0}
    merges = [Merge("merged", NAMES, weights), Merge("merged_without_vectors", NAMES[1:], others)]
    merged, without, *_ = channel_scorers(worlds.channels(), merges, worlds.shared().recent_order)
    assert merged.top_items(BOTH, 6).tolist() == [[0, 2, 5, 1, 4, 3] if has_vector else [0, 1, 2, 3, 4, 5], [3, 4, 1, 0, 2, 5]]
    assert without.top_items(BOTH, 6).tolist() == [[0, 1, 2, 3, 4, 5], [3, 4, 1, 0, 2, 5]]


def test_a_channel_alone_is_filled_up_with_popular_items() -> None:
    alone = ChannelScorer(ChannelName.OWN_HISTORY, BlockOfUsers(worlds.channels()), worlds.shared().recent_order)
    assert alone.name == "channel_own_history"
    assert alone.top_items(BOTH, 4).tolist() == [[0, 1, 3, 4], [3, 4, 1, 0]]
