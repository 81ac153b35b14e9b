"""The quality benchmark on generated text files; its choice and its formulas by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dssm_assets_tests.benchmarks import quality
from dssm_assets_tests.benchmarks.quality_choice import LENGTH, Lists, choose_strengths, sample_last_events
from dssm_assets_tests.benchmarks.quality_data import cut, gap_columns, read_graph_split, read_sequence_split
from dssm_assets_tests.benchmarks.quality_floor import fit_floor, read_attributes
from dssm_assets_tests.benchmarks.quality_ours import find_neighbours, fit_chosen, narrow_vectors
from dssm_assets_tests.benchmarks.quality_scores import ByVectors, mean_metrics
from dssm_assets_tests.benchmarks.quality_settings import ADDED_CODES, Chosen, chosen, text_candidates


def _write(path: Path, rows: list[list[int]]) -> Path:
    path.write_text("".join(f"u{user} {' '.join(f'i{item}' for item in row)}\n" for user, row in enumerate(rows)))
    return path


def _circles(users: int, length: int) -> list[list[int]]:
    """Every user walks on along one of two circles of ten items."""
    return [[10 * (user % 2) + (user // 2 + step) % 10 for step in range(length)] for user in range(users)]


@pytest.mark.slow
def test_command_names_widths_and_shows_the_fair_row_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(tmp_path / "circles.txt", _circles(80, 7))
    quality.main(["--sequences", str(file), "--seeds", "1", "--models", "ours", "popularity"])
    table = capsys.readouterr().out.rpartition("| seen items left out |")[2].splitlines()[2:]
    names, rates = zip(*[line.strip("| ").split(" | ")[:2] for line in table], strict=True)
    assert names[:2] == tuple(f"untrained floor, validation item {end}" for end in ("not trained on", "trained on"))
    assert int(names[2].split()[1]) <= 128
    assert names[2].endswith("not trained on")
    assert dict(zip(names, rates, strict=True))["neighbours alone, validation item not trained on"] == "1.0000"
    assert names[-1] == "popularity, validation item trained on"


def test_validation_item_changes_the_history_alone(tmp_path: Path) -> None:
    vectors = []
    for shift in (0, 3):
        rows = [[*row[:4], 10 * (row[4] // 10) + (row[4] + shift) % 10, row[5]] for row in _circles(40, 6)]
        split = read_sequence_split(_write(tmp_path / str(shift), rows), inner=False)
        part = split.without_last()
        settings = text_candidates(part)["poolings"].with_training(epochs=1)
        vectors.append(fit_chosen(Chosen(((settings, 1.0),), ADDED_CODES), part, None, 0, split))
    assert vectors[0].items.tobytes() == vectors[1].items.tobytes()
    assert not np.allclose(vectors[0].users, vectors[1].users)


def test_last_events_of_some_users(tmp_path: Path) -> None:
    # Five users with the items 1, 2 and 3, of which 3 is held out: users 0, 2 and 4 decide by item 2.
    split = read_sequence_split(_write(tmp_path / "a", [[1, 2, 3]] * 5), inner=False)
    found = sample_last_events(split, 3)
    assert sorted(zip(found.item.tolist(), found.user.tolist(), strict=True)) == [
        *((0, user) for user in range(5)),
        (1, 0),
        (1, 2),
        (1, 4),
    ]
    assert len(sample_last_events(split, 9).user) == 10


def test_query_time_by_hand() -> None:
    # Both users take the items 0 1 2 at the seconds 0 0 5; the last item of one comes 3 seconds later, that of the other 5.
    times, users = np.array([[0, 0], [0, 0], [5, 5], [8, 10]]), np.array([[0, 1]] * 4)
    split = cut(
        np.stack([part.reshape(-1) for part in (users, users * 0 + np.arange(4)[:, None] % 3, times)]), "loo", inner=False
    )
    of_events, of_users = gap_columns(split)
    order, _ = split.by_user()
    # One more than the classes of 0, 5 and 3 seconds: 0, 5 and 4; 0 for a first event.
    assert of_events.values[order].tolist() == [0, 1, 6] * 2
    assert of_users.values.tolist() == [5, 6]
    settings = chosen("ml-1m", "loo").parts[0][0].with_training(epochs=1)
    for with_gap in (False, True):
        vectors = fit_chosen(Chosen(((replace(settings, with_gap=with_gap), 1.0),)), split, None, 0, split)
        assert np.allclose(*vectors.users, atol=1e-5) is not with_gap


@pytest.mark.parametrize(
    ("margins", "strength"),
    [
        # Towers put wrong items 1.5, 3, ... 48 ahead of the right one, codes one behind it: each strength up to 64 finds one more.
        ([[1.5 * 2**power, -1] for power in range(6)] + [[-1, 0]] * 9, 64.0),
        # Codes turn three users of 16 to the better and two to the worse: a gain of .06 with an error of .14.
        ([[1, -8]] * 3 + [[-1, 8]] * 2 + [[1, 8]] * 11, 0.0),
    ],
)
def test_strengths(margins: list[list[float]], strength: float) -> None:
    wrong = np.repeat(np.array(margins, np.float32)[:, None, :], LENGTH, axis=1)
    lists = Lists(wrong, np.ones(wrong.shape[:2], np.bool_), np.ones(len(wrong), np.bool_))
    assert choose_strengths(lists, ("towers", "codes"), 1).tolist() == [1.0, strength]


def test_narrow_vectors_keep_lists_that_need_no_more() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(9, 2)), rng.normal(size=(7, 2))
    narrow = narrow_vectors(ByVectors(users @ np.eye(2, 5), items @ np.eye(2, 5)), 2)
    difference = narrow.users @ narrow.items.T - users @ items.T
    assert narrow.items.shape == (7, 2)
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-5)


def test_graph_by_hand(tmp_path: Path) -> None:
    train, test = _write(tmp_path / "a", [[1, 2, 3, 4], [1, 2]]), _write(tmp_path / "b", [[5, 6], [3, 4, 9]])
    split = read_graph_split(train, test, inner=False)
    assert (split.eval_users.tolist(), sorted(split.truth_item.tolist()), split.dropped_pairs) == ([1], [2, 3], 3)
    # c(1, 2) = 1 / root 4 + 1 / root 2, c(1, 3) = c(2, 3) = 1 / root 4; items 1 and 2 have two users, item 3 one, and each 3 more.
    scores = find_neighbours(split, 1.0, split).score(np.array([1]))[0]
    assert scores[0] / scores[2] == pytest.approx((0.5 + 0.5**0.5) / 5 / (2 * 0.5 / 20**0.5))
    # Ranks 0 and 30 of two items; the user whose items are unknown counts as missed.
    found = mean_metrics(np.array([0, 30]), split, ("Recall@20", "NDCG@20"))
    assert found == {"Recall@20": 0.25, "NDCG@20": pytest.approx(0.5 / (1 + 1 / np.log2(3)))}


def test_floor_by_hand(tmp_path: Path) -> None:
    file = _write(tmp_path / "lines", [[0, 1, 2, 3], [1, 2, 0, 3]])
    split = read_sequence_split(file, inner=False)
    # Two users took each item of the training part. t(0, 1) = 1 / 2, t(0, 2) = 1/2 / 2, t(1, 2) = 2 / 2, t(1, 0) = 1/2 / 2,
    # t(2, 0) = 1 / 2; each two items have two common users: s = 2 / 7. User 0 took 2 last, 1 before it and 0 before that.
    scores = fit_floor(split, split).score(np.array([0]))[0]
    assert scores == pytest.approx(
        [(1 / 2 + 2 / 7) + (1 / 4 + 2 / 7) / 2, 2 / 7 + (1 / 2 + 2 / 7) / 3, (1 + 2 / 7) / 2 + (1 / 4 + 2 / 7) / 3]
    )
    # Items 0 and 1 have one attribute and it alone, item 2 another one; item 9 is unknown.
    (tmp_path / "attributes").write_text("i0 red\ni1 red red\ni2 blue\ni9 red\n")
    more = fit_floor(split, split, read_attributes(tmp_path / "attributes", file, split)).score(np.array([0]))[0]
    assert more - scores == pytest.approx([1 / 2, 1 / 3, 0])
