"""Layers, lengths and seeded dropout of a tower."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dssm_assets.core.config.model import Model, Norm, Similarity
from dssm_assets.core.models.tower import BatchNorm, Tower
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets_tests.core.models.features import ONE_OF_EACH_SIDE


def _tower(model: Model, seed: int = 0) -> Tower:
    return Tower(6, tower_spec(ONE_OF_EACH_SIDE, model), torch.Generator().manual_seed(seed))


def test_shapes_follow_hidden_units_and_output_dim() -> None:
    shapes = [tuple(p.shape) for p in _tower(Model(hidden_units=[5, 4], output_dim=3)).linears.parameters()]
    assert shapes == [(5, 6), (5,), (4, 5), (4,), (3, 4), (3,)]
    assert [tuple(p.shape) for p in _tower(Model(hidden_units=[], output_dim=3)).parameters()] == [(3, 6), (3,)]


def test_only_cosine_vectors_have_length_one() -> None:
    inputs = torch.arange(12.0).view(2, 6)
    lengths = _tower(Model(similarity=Similarity.COSINE))(inputs, None).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1.0, 1.0])
    assert not torch.allclose(_tower(Model(similarity=Similarity.INNER_PRODUCT))(inputs, None).norm(dim=1), torch.ones(2))


def test_dropout_follows_its_generator_and_is_off_without_one() -> None:
    tower, inputs = _tower(Model(dropout=0.5)), torch.arange(12.0).view(2, 6)
    drawn = [tower(inputs, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(tower(inputs, None), _tower(Model(dropout=0.0))(inputs, torch.Generator().manual_seed(1)))


def test_dropout_keeps_the_mean() -> None:
    tower = _tower(Model(dropout=0.5, similarity=Similarity.INNER_PRODUCT, hidden_units=[16], output_dim=4))
    inputs, draws = torch.arange(6.0).expand(20_000, 6), torch.Generator().manual_seed(1)
    assert tower(inputs, draws).mean(0).tolist() == pytest.approx(tower(inputs[:1], None)[0].tolist(), abs=0.03)


def test_weights_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = _tower(Model(), 0), _tower(Model(), 0), _tower(Model(), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.linears[0].weight, again.linears[0].weight)  # type: ignore[arg-type]
    assert not torch.equal(first.linears[0].weight, other.linears[0].weight)  # type: ignore[arg-type]


def _shared_tower(**model: Any) -> Tower:
    """Returns a tower of inner products over 3 columns, the last two of which are shared; its layers give zeros."""
    changes = {"similarity": Similarity.INNER_PRODUCT, "hidden_units": [], "output_dim": 2, **model}
    tower = Tower(3, tower_spec(ONE_OF_EACH_SIDE, Model(**changes)), torch.Generator().manual_seed(0), [1, 2])
    with torch.no_grad():
        for weights in tower.linears.parameters():
            weights.zero_()
    return tower


def test_skip_adds_a_linear_map_of_the_shared_columns() -> None:
    tower = _shared_tower(skip=True)
    assert tower.skip is not None
    assert tower.skip.bias is None
    with torch.no_grad():
        tower.skip.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 10.0]]))
    assert tower(torch.tensor([[7.0, 2.0, 3.0]]), None).tolist() == [[2.0, 30.0]]
    assert _shared_tower().skip is None
    spec = tower_spec(ONE_OF_EACH_SIDE, Model(skip=True))
    assert Tower(3, spec, torch.Generator().manual_seed(0)).skip is None


def test_embedding_dropout_drops_shared_columns_before_layers_and_skip() -> None:
    tower = _shared_tower(skip=True, embedding_dropout=0.5, output_dim=3)
    assert tower.skip is not None
    with torch.no_grad():
        tower.linears[0].weight.copy_(torch.eye(3))  # type: ignore[operator, union-attr]
        tower.skip.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    inputs = torch.tensor([[1.0, 1.0, 1.0]]).expand(4000, 3)
    assert tower(inputs[:1], None).tolist() == [[1.0, 2.0, 2.0]]
    drawn = tower(inputs, torch.Generator().manual_seed(1))
    # A kept value is doubled, in the layer and in the skip alike: 0 or 4.
    assert set(drawn[:, 0].tolist()) == {1.0}
    assert set(drawn[:, 1].tolist()) == set(drawn[:, 2].tolist()) == {0.0, 4.0}
    assert drawn.mean(0).tolist() == pytest.approx([1.0, 2.0, 2.0], abs=0.15)
    assert not torch.equal(drawn[:, 1], drawn[:, 2])
    assert torch.equal(drawn, tower(inputs, torch.Generator().manual_seed(1)))


def test_norm_is_between_layer_and_activation() -> None:
    inputs = torch.arange(12.0).view(2, 6)
    found = {norm: _tower(Model(norm=norm, dropout=0.0))(inputs, torch.Generator()) for norm in Norm}
    assert not torch.allclose(found[Norm.LAYER], found[Norm.NONE])
    assert not torch.allclose(found[Norm.BATCH], found[Norm.NONE])
    bare = _tower(Model(norm="none"))
    by_hand = bare.linears[1](torch.relu(bare.linears[0](inputs)))
    assert torch.equal(found[Norm.NONE], torch.nn.functional.normalize(by_hand, dim=1))


COLUMN = torch.tensor([[1.0], [5.0]])


def test_batch_norm_uses_the_batch_and_averages_a_tenth_of_it() -> None:
    norm = BatchNorm(1)
    # Mean 3, deviation 2. Running averages: .9 * 0 + .1 * 3, and .9 * 1 + .1 * 8 (the unbiased variance).
    assert norm(COLUMN).flatten().tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx((0.3, 1.7))
    # (5 - .3) / sqrt(1.7)
    assert norm.eval()(COLUMN)[1].item() == pytest.approx(4.7 / 1.7**0.5, rel=1e-4)
    assert (norm.running_mean.item(), norm.running_var.item()) == pytest.approx((0.3, 1.7))


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_batch_of_one_row_uses_the_running_averages(is_shared: bool) -> None:
    norm = BatchNorm(1)
    norm.add_up = (lambda sums: sums) if is_shared else None
    assert norm(torch.tensor([[2.0]])).item() == pytest.approx(2.0, rel=1e-4)
    assert norm(torch.zeros(0, 1)).shape == (0, 1)
    assert norm.running_mean.item() == 0.0


def test_a_shared_batch_is_normalised_by_all_rows() -> None:
    # This process has the first row, another the second: it adds its sums of [value, row count] and of squares, 5, 1 and 4.
    theirs = iter([torch.tensor([5.0, 1.0]), torch.tensor([4.0])])
    shared, whole = BatchNorm(1), BatchNorm(1)
    shared.add_up = lambda sums: sums + next(theirs)
    expected = whole(COLUMN)
    assert shared(COLUMN[:1]).item() == pytest.approx(expected[0].item(), abs=1e-6)
    for name, figure in whole.state_dict().items():
        assert shared.state_dict()[name].item() == pytest.approx(figure.item(), rel=1e-6), name
