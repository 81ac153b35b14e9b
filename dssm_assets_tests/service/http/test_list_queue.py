"""Which requests are computed at once: by number, items and comparisons."""

from dssm_assets.service.engine.recall_engine import ListOptions, UserRequest
from dssm_assets.service.http.list_queue import split_by_cost
from dssm_assets.service.http.request_body import count_items


def ask(count=1, **options):
    return [UserRequest("u", options=ListOptions(**options))] * count


def conditions(count, value=0):
    """Returns a filter of some conditions; equal values give the same filter."""
    return {f"c{number}": value for number in range(count)}


def sizes(requests, item_count=1000):
    parts = list(split_by_cost(requests, item_count))
    assert [one for part in parts for one in part] == requests
    return [len(part) for part in parts]


def test_lists_of_the_default_length_are_computed_a_hundred_at_once():
    assert sizes([]) == []
    assert sizes(ask(250, k=200)) == [100, 100, 50]


def test_longer_lists_and_lists_with_columns_are_computed_fewer_at_once():
    # 20,000 items together: 2 lists of 10,000, 8 of 800 with two columns (2,400 each).
    assert sizes(ask(5, k=10_000)) == [2, 2, 1]
    assert sizes(ask(20, k=800, fields=["a", "b"])) == [8, 8, 4]


def test_conditions_count_by_the_items_that_they_are_compared_with():
    # 10 million comparisons together: of 100,000 items with 20 conditions, 5 requests.
    requests = [one for value in range(12) for one in ask(filters=conditions(20, value))]
    assert sizes(requests, 100_000) == [5, 5, 2]
    assert sizes(requests, 1_000) == [12]
    assert sizes(requests, 10_000_000) == [1] * 12, "one is never split"


def test_the_filter_of_the_request_before_costs_nothing():
    assert sizes(ask(100, k=1, filters=conditions(60)), 100_000) == [100]
    # 25 conditions and 12,500 items: 32 filters are 10 million comparisons.
    for values in ([0, 1], [1, True]):
        turn = [one for value in values for one in ask(k=1, filters=conditions(25, value))] * 25
        assert sizes(turn, 12_500) == [32, 18]


def test_filters_that_are_refused_cost_nothing():
    refused = [conditions(65), [{}] * 65, 5]
    assert sizes([one for filters in refused for one in ask(10, filters=filters)], 10_000_000) == [30]


def test_items_of_a_batch():
    assert count_items([*ask(2, k=10), *ask(k=5, fields=["a", "a", "b"]), *ask(k=-1)]) == 20 + 15
