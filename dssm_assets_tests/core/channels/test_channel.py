"""What each channel proposes and says, by hand; see `worlds`."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.config.channels import ChannelName
from dssm_assets_tests.core.channels import worlds

BOTH = np.array([0, 1])


def by_name(name: ChannelName):
    return next(channel for channel in worlds.channels() if channel.name is name)


def test_a_list_says_less_of_each_next_place_and_nothing_of_others() -> None:
    channel = by_name(ChannelName.VECTORS)
    assert channel.propose(BOTH).tolist() == worlds.NEAREST.tolist()
    said = channel.describe(BOTH, np.array([[5, 0, 2, 1], [5, 4, -1, 0]]), np.array([[0, 1, 2, -1], [1, 0, -1, -1]]))
    # Lists of 3: ln(4 / 1), ln(4 / 2), ln(4 / 3).
    assert said[0] == pytest.approx(np.array([[1.386294, 0.693147, 0.287682, 0], [0.693147, 1.386294, 0, 0]]), abs=1e-6)


def test_vectors_say_how_far_any_item_is_from_those_of_the_list() -> None:
    channel = by_name(ChannelName.VECTORS)
    said = channel.describe(
        BOTH, np.array([[5, 0, 2, 1, -1], [5, 4, 0, -1, -1]]), np.array([[0, 1, 2, -1, -1], [1, 0, -1, -1, -1]])
    )
    # User 0: 8, 3, 1 in the list, mean 4, deviation root(26 / 3) = 2.944; item 1 has -2. User 1: 4 and 2, item 0 has 0.
    assert said[1, 0] == pytest.approx([1.358732, -0.339683, -1.019049, -2.038099, 0], abs=1e-6)
    assert said[1, 1] == pytest.approx([-1, 1, -3, 0, 0])


def test_vectors_say_nothing_of_items_that_all_score_the_same_or_of_users_without_a_list() -> None:
    channel = by_name(ChannelName.VECTORS)
    assert not channel.describe(BOTH, np.array([[3, 0], [4, 5]]), np.array([[0, -1], [-1, -1]]))[1].any()


def test_own_items_are_ordered_by_count_and_age() -> None:
    channel = by_name(ChannelName.OWN_HISTORY)
    # Item 0: .8 ln 3 - .3 ln 10 + .2 ln 2 = .327; item 1: 0.
    assert channel.propose(BOTH).tolist() == [[0, 1], [-1, -1]]
    said = channel.describe(BOTH, np.array([[0, 1, 4, -1], [0, 1, 4, -1]]), np.array([[0, 1, -1, -1], [-1, -1, -1, -1]]))
    # Item 1 was taken once, yesterday: ln 1 = 0 events and days.
    assert said[:, 0, 0] == pytest.approx([1, np.log(3), np.log(10), np.log(4 / 2)])
    assert said[:, 0, 1] == pytest.approx([1, 0, 0, np.log(2 / 2)])
    assert not said[:, 0, 2:].any()
    assert not said[:, 1].any()


def test_neighbors_leave_out_own_items() -> None:
    channel = by_name(ChannelName.ITEM_TO_ITEM)
    # Items 0 and 1 are the most similar to each other, but user 0 has both.
    assert channel.propose(BOTH).tolist() == [[2, -1, -1], [-1, -1, -1]]


def test_neighbors_know_every_neighbor_of_an_item_of_the_user() -> None:
    # Of user 0, item 1 goes with item 0 and item 0 with items 1 and 2; the largest sum is .9.
    channel = by_name(ChannelName.ITEM_TO_ITEM)
    rank, similarity = channel.describe(BOTH, np.array([[2, 5, 0], [2, 5, -1]]), np.array([[0, -1, -1], [-1, -1, -1]]))
    assert rank.tolist() == [[pytest.approx(np.log(4)), 0, 0], [0, 0, 0]]
    assert similarity[0] == pytest.approx(np.log1p(20 * np.array([0.5, 0, 0.9]) / 0.9))
    assert not similarity[1].any()


def test_popularity_is_recent_first_and_describes_every_item() -> None:
    channel = by_name(ChannelName.RECENT_POPULARITY)
    assert channel.propose(BOTH).tolist() == [[3, 4], [3, 4]]
    said = channel.describe(BOTH, np.array([[0, -1], [4, 5]]), np.array([[-1, -1], [1, -1]]))
    assert said[:, 0] == pytest.approx(np.log1p([[3, 0], [0, 0], [4, 0]]))
    assert said[:, 1] == pytest.approx(np.log1p([[9, 0], [2, 0], [9, 1]]))
