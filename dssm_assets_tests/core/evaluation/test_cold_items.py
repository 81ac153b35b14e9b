"""Cold items: their order by category, which column is a category, the model over them alone."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.cold_items import ColdModelScorer, choose_category_column, order_by_category
from dssm_assets.core.evaluation.scorer import model_scorer, read_corpus


def test_items_of_the_most_popular_category_come_first() -> None:
    categories, events = np.array([1, 0, 1, 1, -1]), np.array([5, 0, 0, 0, 0])
    assert order_by_category(np.array([1, 2, 3, 4]), categories, events).tolist() == [2, 3, 1, 4]
    assert order_by_category(np.array([2, 0]), np.full(3, -1), np.zeros(3)).tolist() == [2, 0]


def test_a_category_has_about_as_many_values_as_each_has_items() -> None:
    place = np.arange(900)  # the root is 30
    columns = {
        "item_id": place,
        "brand": [f"b{k % 3}" for k in place],
        "category": [f"c{k % 40}" for k in place],
        "size": [k % 400 for k in place],
        "price": (place % 30) * 1.5,
        "since": [dt.datetime(2024, 1, 1 + k % 30) for k in place.tolist()],
        "shop": ["one"] * 900,
    }
    items = pa.table(columns)
    assert choose_category_column(items, ["item_id"]) == "category"
    assert choose_category_column(items.drop_columns(["category"]), ["item_id"]) == "brand"
    assert choose_category_column(items.select(["item_id", "price", "since", "shop"]), ["item_id"]) is None


@pytest.mark.parametrize(("cold", "expected"), [([1, 3], [[3, 1, -1]]), ([], [[-1, -1, -1]])])
def test_the_model_ranks_cold_items_among_themselves(cold: list[int], expected: list[list[int]]) -> None:
    def table(side: str, ids: list[str], vectors: list[list[float]]) -> pa.Table:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.array(vectors, np.float32).ravel()), 2)
        return pa.table({f"{side}_id": ids, f"{side}_tower_emb": flat})

    items = table("item", ["a", "b", "c", "d"], [[9, 0], [1, 0], [8, 0], [2, 0]])
    corpus = read_corpus(items, Similarity.INNER_PRODUCT)
    model = model_scorer(*corpus, table("user", ["u"], [[1, 0]]), pa.array(["u"]))
    assert ColdModelScorer(model, np.array(cold, np.int64)).top_items(np.array([0]), 3).tolist() == expected
