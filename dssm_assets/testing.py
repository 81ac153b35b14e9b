"""Contract tests for your own losses, samplers, poolings, baselines and feature operators. Your test classes inherit from these classes.

    from dssm_assets.testing import LossContract

    import my_project.losses  # registers my_loss

    class TestMyLoss(LossContract):
        names = ("my_loss",)

Needs pytest. The contract of vector stores is in `dssm_assets.extras.vector_stores.testing`. Tests of a single implementation do not
belong here.

Letters: B rows, C columns, H hard negatives, U users, I items, K top-k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray, ItemSets, offsets_of
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.model import Model, Pooling
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.evaluation.baselines.fit_data import MAX_USER_ITEMS, FitData, recent_items
from dssm_assets.core.evaluation.baselines.registry import check_extras, load_code
from dssm_assets.core.evaluation.interactions import Interactions, interactions_of_events
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.models.losses import LOSSES, LossTerms, MaskedPairs
from dssm_assets.core.models.poolings import MS_PER_DAY, POOLINGS, HistoryEvents
from dssm_assets.core.models.samplers import SAMPLERS, HardEdges
from dssm_assets.core.names import BASELINES
from dssm_assets.core.training.batch_negatives import matching_pairs

LEAST_P: Final = 1e-4
"""If the p-value is smaller, draws do not follow a distribution. Seeds are fixed, so a test always gives the same result."""
HOSTILE_TEXTS: Final = ["", " ", "\x1d", "a\x1db", "\x1d\x1d", ":", "a:", ":1", "a:1", "a:b:2", "b:x", "nan", "inf", "-0", "1e999",
                        " 7 ", "+3", "1,5", "0x1", "\0", "é", "a\x1da:1", "x" * 300]  # fmt: skip
_HOSTILE_COLUMNS: Final = (
    pa.array([None, *HOSTILE_TEXTS], pa.string()),
    pa.array([None, 0.0, -0.0, 1.5, 1e300, -1e39, 2.0**63, float("nan"), float("inf")], pa.float64()),
    pa.array([None, 0, -1, 7, -(2**63), 2**63 - 1], pa.int64()),
    pa.array([None, True, False], pa.bool_()),
)


class _NamedContract:
    """Runs each test once for each name in `names`; the names must be registered."""

    names: ClassVar[Sequence[str]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("name", self.names)


@dataclass(frozen=True)
class LossBatch:
    """A batch for a loss: vectors of users [B, 3], their items [B, 3], columns [C, 3] and hard negatives [H, 3], and the terms."""

    vectors: tuple[Tensor, Tensor, Tensor, Tensor]
    terms: LossTerms

    @property
    def leaves(self) -> list[Tensor]:
        """Returns copies of the vectors as leaves that receive gradients."""
        return [tensor.clone().requires_grad_() for tensor in self.vectors]


def random_batch(seed: int, rows: int, negatives: int, hard: int, kind: torch.dtype = torch.float64) -> LossBatch:
    """Returns a random batch with in-batch columns, `negatives` further columns, collisions, weights, corrections and hard negatives."""
    rng = np.random.default_rng(seed)

    def tensor(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape)).to(kind)

    user, item, items = tensor(rows, 3), tensor(rows, 3), rng.integers(0, 4, rows)
    columns = np.concatenate([items, rng.integers(0, 4, negatives)])
    terms = LossTerms(
        positive_correction=tensor(rows),
        column_correction=tensor(rows + negatives),
        weight=torch.from_numpy(rng.uniform(0.5, 2, rows)).to(kind),
        masked=matching_pairs(np.arange(rows), items, columns),
        hard_rows=rng.integers(0, rows, hard),
        hard_correction=tensor(hard),
    )
    return LossBatch((user, item, torch.cat([item, tensor(negatives, 3)]), tensor(hard, 3)), terms)


def _compute_loss(name: str, vectors: Sequence[Tensor], terms: LossTerms, scale: float = 1.0) -> Tensor:
    user, positive, columns, hard = vectors
    return LOSSES[name](user, positive, columns, hard, terms, scale, None)


class LossContract(_NamedContract):
    """Contract of a loss for training. Tests the entries `names` of `LOSSES`."""

    def test_gradients_are_those_of_the_value(self, name: str) -> None:
        batch = random_batch(3, 4, 3, 2)
        assert torch.autograd.gradcheck(lambda *vectors: _compute_loss(name, vectors, batch.terms, 3.0), batch.leaves)

    def test_a_cell_masked_twice_is_masked_once(self, name: str) -> None:
        batch = random_batch(1, 3, 2, 0)
        masked = batch.terms.masked
        twice = replace(batch.terms, masked=MaskedPairs(np.repeat(masked.rows, 2), np.repeat(masked.columns, 2)))
        once, again = (_compute_loss(name, batch.vectors, terms).item() for terms in (batch.terms, twice))
        assert once == again

    def test_a_column_masked_for_all_rows_has_no_influence(self, name: str) -> None:
        batch = random_batch(4, 3, 2, 1)
        terms = replace(batch.terms, masked=MaskedPairs(np.arange(3), np.full(3, 4)))
        values = []
        for factor in (1.0, 100.0):
            user, positive, columns, hard = (vector.clone() for vector in batch.vectors)
            columns[4] *= factor
            values.append(_compute_loss(name, (user, positive, columns, hard), terms).item())
        assert values[0] == pytest.approx(values[1], rel=1e-12)

    def test_only_the_ratios_of_weights_matter(self, name: str) -> None:
        batch = random_batch(5, 4, 2, 2)
        doubled = replace(batch.terms, weight=2.0 * batch.terms.weight)
        values = [_compute_loss(name, batch.vectors, terms).item() for terms in (batch.terms, doubled)]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


def p_value(drawn: npt.NDArray[Any], distribution: npt.NDArray[np.float64]) -> float:
    """Returns the probability of draws at least as far from a distribution as these (Pearson's chi-square), 0 for an impossible draw."""
    observed = np.bincount(drawn, minlength=len(distribution))
    possible = distribution > 0
    if observed[~possible].any():
        return 0.0
    expected = distribution[possible] * observed.sum()
    statistic = float(((observed[possible] - expected) ** 2 / expected).sum())
    degrees = int(possible.sum()) - 1
    return float(torch.special.gammaincc(torch.tensor(degrees / 2.0).double(), torch.tensor(statistic / 2).double()).item())


class SamplerContract(_NamedContract):
    """Contract of a sampler for training. Tests the entries `names` of `SAMPLERS` with weights of 50 items and no hard edges."""

    def test_draws_follow_the_distribution_that_is_disclosed(self, name: str) -> None:
        sampler = SAMPLERS[name](Model(sampler=name), 1.0 / np.arange(1, 51), HardEdges.empty())
        assert sampler.probability.shape == (50,) and sampler.probability.sum() == pytest.approx(1.0)
        drawn, probability = sampler.draw(100_000, np.random.default_rng(3))
        assert probability.tolist() == sampler.probability[drawn].tolist(), "logQ needs the probability of each draw"
        assert p_value(drawn, sampler.probability) > LEAST_P

    def test_draws_repeat_with_the_seed(self, name: str) -> None:
        sampler = SAMPLERS[name](Model(sampler=name), 1.0 / np.arange(1, 51), HardEdges.empty())
        first, again = (sampler.draw(50, np.random.default_rng(1))[0].tolist() for _ in "12")
        assert first == again


class PoolingContract(_NamedContract):
    """Contract of a pooling for the towers. Tests the entries `names` of `POOLINGS`, each with all of the `settings`."""

    settings: ClassVar[Sequence[Mapping[str, Any]]] = ({}, {"length": 2}, {"half_life_days": 3.0}, {"sqrt_repeats": True})

    def test_a_batch_equals_its_rows_one_by_one(self, name: str) -> None:
        rng = np.random.default_rng(1)
        for settings in self.settings:
            pooling = POOLINGS[name](Pooling(kind=name, **settings))
            lengths = np.append(rng.integers(0, 7, 30), [0, 1])
            values = rng.integers(0, 4, lengths.sum())  # 0: missing
            ends = np.cumsum(lengths)
            times = np.concatenate([np.sort(rng.integers(0, 30 * MS_PER_DAY, length)) for length in lengths])
            (whole,) = pooling.pool(HistoryEvents((values,), offsets_of(lengths), times))
            assert whole.weights.dtype == np.float32 and np.isfinite(whole.weights).all() and (whole.weights >= 0).all()
            for row, (end, length) in enumerate(zip(ends, lengths, strict=True)):
                own = slice(end - length, end)
                (alone,) = pooling.pool(HistoryEvents((values[own],), np.array([0, length]), times[own]))
                here = slice(whole.offsets[row], whole.offsets[row + 1])
                assert whole.values[here].tolist() == alone.values.tolist()
                assert whole.weights[here] == pytest.approx(alone.weights)
                assert set(alone.values.tolist()) <= set(values[own][-pooling.num_events :].tolist()) - {0}


def item_events(found: Interactions) -> IntArray:
    """Returns the positive events of each item, int64 [I]."""
    return np.bincount(found.item_index, weights=found.count, minlength=found.num_items).astype(np.int64)


def user_items(window: Interactions, max_items: int = MAX_USER_ITEMS) -> ItemSets:
    """Returns each user's items in these interactions. See `recent_items`."""
    lengths, items = recent_items(window, max_items)
    return ItemSets(offsets_of(lengths), items)


def fit_data(window: Interactions, recent: Interactions, history: Interactions, settings: Evaluation, **more: Any) -> FitData:
    """Returns the fit data of baselines. Recent events are the events in `recent`. Every item counts as having had an event lately."""
    return FitData(
        window_events=item_events(window),
        recent_events=item_events(recent).astype(np.float64),
        history_events=item_events(history),
        window_days=30,
        read_item_events=lambda days: item_events(window),
        read_user_items=lambda days: user_items(window),
        read_history=lambda: iter([history]),
        settings=settings,
        **more,
    )


class BaselineContract(_NamedContract):
    """Contract of a baseline for the evaluation. Tests the entries `names` of `BASELINES` with 12 users and 9 items."""

    def test_it_ranks_every_user_alike_alone_and_among_others(self, name: str) -> None:
        baseline = BASELINES[name]
        settings = Evaluation(extra_baselines=[name] if baseline.is_extra else [])
        check_extras(settings.extra_baselines)
        code = load_code(baseline)
        users, items = np.repeat(np.arange(11), 6), np.random.default_rng(2).integers(0, 8, 66)  # user 11, item 8: no event
        history, window = _sum_events(users, items), _sum_events(users[::2], items[::2])
        arrays, again = (code.fit(fit_data(window, window, history, settings)) for _ in "12")
        assert {key: array.tobytes() for key, array in arrays.items()} == {key: array.tobytes() for key, array in again.items()}
        scorer = code.scorer(arrays, window, history)
        assert scorer.name == name
        whole = scorer.top_items(np.arange(12), 12)
        assert (whole.dtype, whole.shape) == (np.int64, (12, 12))
        for ranked in whole.tolist():
            shown = [item for item in ranked if item >= 0]
            assert ranked == shown + [-1] * (12 - len(shown)), "-1 comes after the last item"
            assert len(set(shown)) == len(shown) and max(shown) < 9
        assert scorer.top_items(np.arange(12), 4).tolist() == whole[:, :4].tolist(), "a shorter list begins a longer one"
        for user in range(12):
            assert scorer.top_items(np.array([user]), 12)[0].tolist() == whole[user].tolist()
            own = (_select_user(window, user), _select_user(history, user))
            assert code.scorer(arrays, *own).top_items(np.array([0]), 12)[0].tolist() == whole[user].tolist()


def _sum_events(users: IntArray, items: IntArray) -> Interactions:
    return interactions_of_events(users, items, np.arange(len(users), dtype=np.int64), num_users=12, num_items=9)


def _select_user(found: Interactions, user: int) -> Interactions:
    own = slice(found.indptr[user], found.indptr[user + 1])
    items, counts, times = (column[own] for column in (found.item_index, found.count, found.last_time_ms))
    return Interactions(np.array([0, len(items)]), items, counts, times, found.num_items)


def check_rows(operator: Operator, *columns: pa.Array) -> None:
    """Checks that every row gets the same values in a batch as alone."""
    alone = [
        row for i in range(len(columns[0])) for row in _rows_of(operator.compute([column[i : i + 1] for column in columns]))
    ]
    assert _rows_of(operator.compute(columns)) == alone


def _rows_of(values: pa.Array) -> list[str]:
    """Returns the repr of each value, which distinguishes NaN from null."""
    return [repr(value) for value in values.to_pylist()]


class OperatorContract:
    """Contract of an operator for feature generation. Tests it with the `definitions`, entries of fg.json."""

    definitions: ClassVar[Sequence[Mapping[str, Any]]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("definition", self.definitions, ids=[one["feature_type"] for one in self.definitions])

    def test_a_batch_equals_its_rows_in_one_type(self, definition: Mapping[str, Any]) -> None:
        operator = OPERATORS[definition["feature_type"]].model_validate({"feature_name": "f", **definition})
        found = set()
        for column in _HOSTILE_COLUMNS:
            order = np.arange(len(column))
            inputs = [column.take(pa.array(np.roll(order, shift))) for shift in range(len(operator.expression_texts))]
            try:
                computed = operator.compute(inputs)
            except SchemaError:  # an operator may refuse a type
                continue
            found.add(computed.type)
            check_rows(operator, *inputs)
            assert len(operator.compute([one[:0] for one in inputs])) == 0
        assert len(found) == 1, "hash, boundaries and tower need one type whatever the input's"
        kind = found.pop()
        for _ in range(operator.depth):
            kind = kind.value_type
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        assert text == (pa.float32() if operator.kind is Kind.NUMERIC else pa.string())
