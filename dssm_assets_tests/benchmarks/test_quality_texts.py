"""Splits and metrics of text files, by hand; the command on both kinds of files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dssm_assets.core.config.training import SvdInit
from dssm_assets_tests.benchmarks import quality, quality_choice
from dssm_assets_tests.benchmarks.quality_choice import before_last_day, choose_parts
from dssm_assets_tests.benchmarks.quality_lightgcn import fit_lightgcn, mean_of_layers, normalised_graph
from dssm_assets_tests.benchmarks.quality_metrics import ndcg_at, recall_at
from dssm_assets_tests.benchmarks.quality_neighbours import find_neighbours
from dssm_assets_tests.benchmarks.quality_rectools import fit_sasrec
from dssm_assets_tests.benchmarks.quality_settings import Settings
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Split
from dssm_assets_tests.benchmarks.quality_text_settings import text_candidates, text_peer_settings
from dssm_assets_tests.benchmarks.quality_texts import read_pair_split, read_sequence_split


def _file(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _truth(split: Split) -> list[tuple[int, int]]:
    return list(zip(split.eval_users[split.truth_row].tolist(), split.item_ids[split.truth_item].tolist(), strict=True))


def test_the_last_item_of_three_or_more_is_held_out(tmp_path: Path) -> None:
    # Codes of items are in the order of the file: a 0, b 1, c 2, d 3. User v has two and trains; item d is unknown to the
    # training part; w ends with an item it had before.
    split = read_sequence_split(_file(tmp_path, "x.txt", "u a b c", "v c a", "x a b d", "w b c b"))
    assert split.user.tolist() == [0, 1, 2, 3] * 2
    assert split.item_ids[split.item].tolist() == [0, 2, 0, 1, 1, 0, 1, 2]
    assert split.time_s.tolist() == [SECONDS_PER_DAY * 2 - 1] * 4 + [SECONDS_PER_DAY * 2] * 4
    assert _truth(split) == [(0, 2), (3, 1)]
    assert (split.dropped_pairs, split.lost_users, split.repeated_pairs) == (1, 1, 1)
    assert split.truth_totals.tolist() == [1, 1]


def test_the_inner_split_holds_out_once_more(tmp_path: Path) -> None:
    split = read_sequence_split(_file(tmp_path, "x.txt", "u a b c d", "v c b a"), inner=True)
    # Of u the rest is a b c, so c; of v two are left.
    assert _truth(split) == [(0, 2)]


def test_pair_of_files(tmp_path: Path) -> None:
    train = _file(tmp_path, "train.txt", "1 10 11 12", "2 10", "3 12")
    test = _file(tmp_path, "test.txt", "2 11 99 12", "1 13", "3", "4 10")
    split = read_pair_split(train, test)
    # Of user 2 items 11 and 12 can be hit of three; users 1 and 4 can not be hit at all; user 3 has nothing held out.
    assert split.eval_users.tolist() == [1]
    assert split.truth_totals.tolist() == [3]
    assert len(split.truth_item) == 2
    assert split.lost_users == 2


def test_the_inner_part_of_a_pair_is_a_fifth_of_every_user(tmp_path: Path) -> None:
    lines = [f"{user} {' '.join(map(str, range(10)))}" for user in range(4)]
    train = _file(tmp_path, "train.txt", *lines, "9 1 2 3", "8 4")
    split = read_pair_split(train, _file(tmp_path, "test.txt", "1 44"), inner=True)
    assert split.truth_counts().tolist() == [2, 2, 2, 2, 1]  # a fifth of 10, at least one of 3, none of a single one
    assert len(split.user) == 4 * 8 + 2 + 1


def test_the_order_of_a_graph_is_drawn(tmp_path: Path) -> None:
    train = _file(tmp_path, "train.txt", f"1 {' '.join(map(str, range(30)))}", f"2 {' '.join(map(str, range(30)))}")
    split = read_pair_split(train, _file(tmp_path, "test.txt", "1 0"))
    order, _ = split.by_user()
    first, second = split.item_ids[split.item[order]].reshape(2, 30).tolist()
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second and first != sorted(first)


def test_recall_and_ndcg_by_hand() -> None:
    # User 0: two items, at ranks 0 and 7. User 1: one, at rank 3. k = 5.
    ranks, rows, totals = np.array([0, 7, 3]), np.array([0, 0, 1]), np.array([2, 1])
    assert recall_at(ranks, rows, totals, 5) == 0.75
    first, second = 1 / (1 + 1 / math.log2(3)), 1 / math.log2(5)
    assert ndcg_at(ranks, rows, totals, 5) == pytest.approx((first + second) / 2)
    assert recall_at(ranks, rows, totals, 5, lost_users=2) == 0.375
    assert ndcg_at(ranks, rows, np.array([7, 1]), 1) == 0.5  # the best list of one item has one hit, whatever the total


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    def shrink(settings: Settings) -> Settings:
        settings = replace(settings, id_dim=8)
        if settings.code_dim:
            settings = replace(settings, code_dim=8)
        dims = {"output_dim": 16 + settings.code_dim, "hidden_units": [16]}
        rates = {"learning_rate": 0.02, "embedding_learning_rate": 0.02}
        return settings.with_model(**dims).with_training(batch_size=64, epochs=min(8, settings.training.epochs), **rates)

    def quick(rule: str, **facts: Any) -> dict[str, Settings]:
        return {name: shrink(settings) for name, settings in text_candidates(rule, **facts).items()}

    monkeypatch.setattr(quality, "text_candidates", quick)


def test_candidates_follow_facts_of_the_file() -> None:
    few, many = (text_candidates("loo", events=9, items=items, events_per_user=7.0) for items in (20_000, 20_001))
    assert {name: [pooling.kind.value for pooling in one.model.poolings] for name, one in few.items()} == {
        "encoder": ["sequence"],
        "poolings": ["recency", "recency", "root"],
    }
    assert [one["encoder"].model.sampler.value for one in (few, many)] == ["all", "weighted"]
    assert [one["encoder"].model.in_batch for one in (few, many)] == [False, True]
    long = text_candidates("loo", events=9, items=20_000, events_per_user=50.0)
    assert [one["encoder"].model.history_length for one in (few, long)] == [50, 200]
    pairs = [
        text_candidates("pair", events=events, items=9, events_per_user=7.0) for events in (500_000, 1_000_000, 10_000_000)
    ]
    assert [one["codes and towers"].training.epochs for one in pairs] == [12, 6, 2]
    sizes = [text_candidates("loo", events=events, items=9, events_per_user=7.0)["encoder"] for events in (499_999, 500_000)]
    assert [(one.fits, one.training.batch_size, one.training.epochs) for one in sizes] == [(2, 256, 12), (1, 1600, 12)]


def test_all_last_events_are_alone_on_the_last_day(tmp_path: Path) -> None:
    split = read_sequence_split(_file(tmp_path, "x.txt", "u a b c d", "v c a", "w b"))
    # Training parts: u has a b c, v c a, w b.
    day = split.time_s // SECONDS_PER_DAY
    last = day == day.max()
    assert sorted(zip(split.user[last].tolist(), split.item_ids[split.item[last]].tolist(), strict=True)) == [
        (0, 2),
        (1, 0),
        (2, 1),
    ]
    assert (np.diff(split.time_s) >= 0).all()
    order, bounds = split.by_user()
    assert split.item_ids[split.item[order]].tolist() == [0, 1, 2, 2, 0, 1]
    assert bounds.tolist() == [0, 3, 5, 6]


@pytest.fixture
def no_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_choice, "NEIGHBOURS", {True: (0.0,)})


@pytest.mark.usefixtures("no_neighbours")
def test_the_choice_takes_the_candidate_that_finds_held_out_events(tmp_path: Path) -> None:
    """Items go around a circle: who reads the last item knows the next one, who reads none knows nothing."""
    split = read_sequence_split(_file(tmp_path, "circle.txt", *_groups(120, 6)))
    base = text_candidates("loo", events=9, items=20, events_per_user=5.0)["poolings"].with_training(
        batch_size=64, learning_rate=0.02, embedding_learning_rate=0.02, epochs=4
    )
    base = replace(base, id_dim=8, added_codes=None).with_model(output_dim=16, hidden_units=[16])
    blind = base.with_model(poolings=[{"kind": "mean", "length": 50}], embedding_dropout=0.95)
    chosen = choose_parts(split, {"blind": blind, "reads the order": base}, is_ordered=True)
    assert [part.model.poolings for part in chosen.parts] == [base.model.poolings]
    assert 1 <= chosen.parts[0].training.epochs <= 4 and chosen.parts[0].training.validation_days == 0


@pytest.mark.usefixtures("no_neighbours")
def test_the_choice_counts_added_codes(tmp_path: Path) -> None:
    """Codes know the group of an item; towers that learn nothing do not."""
    split = read_sequence_split(_file(tmp_path, "circle.txt", *_groups(120, 6)))
    base = text_candidates("loo", events=9, items=20, events_per_user=5.0)["poolings"]
    codes = SvdInit(embedding="codes", score_std=10.0, ridge=100.0)
    base = replace(base, fits=1, id_dim=8, added_codes=codes).with_model(output_dim=16, hidden_units=[16])
    base = base.with_training(epochs=1, learning_rate=1e-9, embedding_learning_rate=1e-9)
    assert [part.added_codes for part in choose_parts(split, {"poolings": base}, is_ordered=True).parts] == [codes]
    # Where nothing but the order is to be learned, these codes hide what the towers know.
    learning = base.with_training(batch_size=64, learning_rate=0.02, embedding_learning_rate=0.02, epochs=4)
    assert [part.added_codes for part in choose_parts(split, {"poolings": learning}, is_ordered=True).parts] == [None]
    before = before_last_day(split)
    assert len(before.user) == len(split.user) - 120
    assert before.by_user()[1].tolist() == list(range(0, 481, 4))  # 6 items, less the held-out one and the last


def _groups(count: int, items: int) -> list[str]:
    """Lines of users in two groups; each group has its own ten items and takes them around a circle."""
    rng = np.random.default_rng(1)
    starts = rng.integers(0, 10, count)
    return [f"{u} {' '.join(str(10 * (u % 2) + (start + i) % 10) for i in range(items))}" for u, start in enumerate(starts)]


def test_neighbours_by_hand(tmp_path: Path) -> None:
    # Training parts: a b c and b c. After a comes b, and c one event later; after b twice c.
    split = read_sequence_split(_file(tmp_path, "x.txt", "u a b c a", "v b c a"))
    late = math.exp(-1 / 2.0)
    a, b = 1 + late, 2.0
    ordered = find_neighbours(split, is_ordered=True, score_std=1.0)
    columns = {1: 1.0, 2: 2 + late}
    expected = np.zeros((3, 3))
    for i, j, count, total in ((0, 1, 1.0, a), (0, 2, late, a), (1, 2, 2.0, b)):
        expected[i, j] = count / ((total + 3) * (columns[j] + 3)) ** 0.5
    found = ordered.weights.toarray()
    assert found / found[0, 1] == pytest.approx(expected / expected[0, 1], rel=1e-5)
    queries = [[math.exp(-1.0), math.exp(-0.5), 1.0], [0, math.exp(-0.5), 1.0]]
    assert ordered.scores(np.array([0, 1])) == pytest.approx(np.array(queries) @ found, rel=1e-5)
    assert ordered.scores(np.array([0, 1])).std(axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    # Without an order user u has a, b, c and v has b, c.
    graph = find_neighbours(split, is_ordered=False, score_std=2.0).weights.toarray()
    u, v = 3**-0.5, 2**-0.5
    counts = np.array([[0, u, u], [u, 0, u + v], [u, u + v, 0]])
    sums = counts.sum(0) + 3
    expected = counts / (sums[:, None] * sums) ** 0.5
    assert graph / graph[0, 1] == pytest.approx(expected / expected[0, 1], rel=1e-5)


def test_the_choice_counts_neighbours(tmp_path: Path) -> None:
    """Who knows nothing takes neighbours, which know the next item; a graph has no next one."""
    split = read_sequence_split(_file(tmp_path, "circle.txt", *_groups(120, 6)))
    blind = text_candidates("loo", events=9, items=20, events_per_user=5.0)["poolings"]
    blind = replace(blind, fits=1, id_dim=8, added_codes=None).with_model(output_dim=16, hidden_units=[16])
    blind = blind.with_training(epochs=1, learning_rate=1e-9, embedding_learning_rate=1e-9)
    chosen = choose_parts(split, {"poolings": blind}, is_ordered=True)
    assert chosen.neighbours_std > 0
    means = {}
    for name, std in (("with", 5.0), ("without", 0.0)):
        runs = quality.run_ours(split, None, replace(chosen, prior=None, neighbours_std=std), [0])
        means[name] = runs[quality.OURS][0].means([1])[0]
    assert means["with"] > 0.9
    assert means["without"] < 0.5


@pytest.mark.usefixtures("small")
def test_the_command_learns_an_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, "circle.txt", *_groups(120, 6))
    quality.main(["--sequences", str(path), "--seeds", "1", "--models", "ours,popularity,rectools", "--json"])
    *text, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert report["dataset"] == "circle"
    # The next item of the circle is the only right one of 15 that are not seen, or of 5 of the own group.
    assert report["dssm-assets"]["means"]["NDCG@10"] > 0.7
    assert report["popularity"]["means"]["NDCG@10"] < 0.6
    assert report["missing"].keys() == {"rectools"}
    assert any(line.startswith("| seen items left out | HR@10 |") for line in text)


@pytest.mark.usefixtures("small")
def test_the_command_runs_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    own = [10 * (user % 2) + rng.permutation(10) for user in range(60)]
    train = _file(tmp_path, "train.txt", *(f"{u} {' '.join(map(str, items[:6]))}" for u, items in enumerate(own)))
    test = _file(tmp_path, "test.txt", *(f"{u} {' '.join(map(str, items[6:]))}" for u, items in enumerate(own)))
    quality.main(["--train", str(train), "--test", str(test), "--seeds", "1", "--models", "ours,ease", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    # 14 items are left, 4 of which are right, and first if the group is known; the test is NDCG, for 20 is all of them.
    assert report["dssm-assets"]["means"]["NDCG@20"] > 0.95
    assert report["ease"]["means"]["Recall@20"] == 1.0


def test_layers_of_lightgcn_by_hand(tmp_path: Path) -> None:
    # User 0 has both items, user 1 the second: degrees 2, 1 of the users and 1, 2 of the items. A repeated event is one edge.
    train = _file(tmp_path, "train.txt", "0 0 1 1", "1 1")
    graph = normalised_graph(read_pair_split(train, _file(tmp_path, "test.txt", "1 0")))
    half = 0.5**0.5
    expected = [[0, 0, half, 0.5], [0, 0, 0, half], [half, 0, 0, 0], [0.5, half, 0, 0]]
    np.testing.assert_allclose(graph.toarray(), expected, rtol=1e-6)
    table = torch.eye(4, requires_grad=True)
    matrix = np.array(expected)
    mean = mean_of_layers(graph, table, 2)
    np.testing.assert_allclose(mean.detach().numpy(), (np.eye(4) + matrix + matrix @ matrix) / 3, rtol=1e-6)
    # The gradient of row 1 of the mean, summed, is that row of (1 + A + A A) / 3 in every column.
    (gradient,) = torch.autograd.grad(mean[1].sum(), [table])
    np.testing.assert_allclose(gradient.numpy()[:, 2], ((np.eye(4) + matrix + matrix @ matrix) / 3)[1], rtol=1e-6)


def test_lightgcn_finds_the_other_items_of_a_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    own = [10 * (user % 2) + rng.permutation(10) for user in range(40)]
    train = _file(tmp_path, "train.txt", *(f"{u} {' '.join(map(str, items[:6]))}" for u, items in enumerate(own)))
    test = _file(tmp_path, "test.txt", *(f"{u} {' '.join(map(str, items[6:]))}" for u, items in enumerate(own)))
    split = read_pair_split(train, test)
    settings = {**text_peer_settings("lightgcn"), "dim": 8, "lr": 0.05, "epochs": 20, "batch_size": 64}
    lists = fit_lightgcn(split, settings, 0, None)[0].lists(split.eval_users, 4, split.seen())
    assert (lists[split.truth_row] == split.truth_item[:, None]).any(1).mean() > 0.95


def test_sasrec_learns_an_order(tmp_path: Path) -> None:
    """Items go around a circle: the next one is one of 14 that are not seen, or of 4 of the own group."""
    pytest.importorskip("rectools.models.nn.transformers.sasrec")
    split = read_sequence_split(_file(tmp_path, "circle.txt", *_groups(120, 6)))
    settings = {**text_peer_settings("sasrec"), "n_factors": 16, "dropout_rate": 0.1, "lr": 0.02, "epochs": 15}
    lists = fit_sasrec(split, settings, 0, None)[0].lists(split.eval_users, 1, split.seen())
    assert (lists[split.truth_row, 0] == split.truth_item).mean() > 0.7


@pytest.mark.parametrize("given", [[], ["--sequences", "a", "--data", "b"], ["--train", "a"], ["--test", "a"]])
def test_exactly_one_source_is_needed(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main(given)
    assert "expected one of" in capsys.readouterr().err


def test_bad_lines_end_the_command_with_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main(["--sequences", str(_file(tmp_path, "x.txt", "1 2 3 4", "1 5"))])
    assert "line       2" in capsys.readouterr().err
