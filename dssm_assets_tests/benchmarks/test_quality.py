"""The quality benchmark on generated logs: it runs, learns, and reports the requested models; formulas by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.errors import LeakError
from dssm_assets_tests.benchmarks import quality, quality_choice, quality_peers, quality_settings
from dssm_assets_tests.benchmarks.quality_choice import before_last_day, choose_parts
from dssm_assets_tests.benchmarks.quality_features import read_entities
from dssm_assets_tests.benchmarks.quality_neighbours import find_neighbours
from dssm_assets_tests.benchmarks.quality_ours import SEQUENCE, code_vectors, fit_vectors, split_tables
from dssm_assets_tests.benchmarks.quality_peers import fit_ease, fit_sasrec
from dssm_assets_tests.benchmarks.quality_scores import ByScores, Run, scored, summary
from dssm_assets_tests.benchmarks.quality_settings import Settings, chosen
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Split, cut, distinct_log, read_split
from dssm_assets_tests.benchmarks.quality_text_settings import TEXT_PEERS, read_sequence_split, text_candidates
from dssm_assets_tests.benchmarks.quality_tiny import USERS, write_tiny

K = 10
DAY = SECONDS_PER_DAY


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_tiny(folder / "tiny")
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lists, small towers, few steps."""

    def shrink(settings: Settings) -> Settings:
        pace = {"epochs": 8, "batch_size": 64, "weight_average": 0.9, "learning_rate": 0.02, "embedding_learning_rate": 0.02}
        settings = replace(settings, id_dim=8, side_dim=4)
        return settings.with_model(output_dim=16 + settings.code_dim, hidden_units=[16]).with_training(**pace)

    monkeypatch.setattr(quality, "chosen", lambda dataset, split: shrink(chosen(dataset, split)))
    monkeypatch.setattr(
        quality, "text_candidates", lambda **facts: {name: shrink(one) for name, one in text_candidates(**facts).items()}
    )
    monkeypatch.setattr("dssm_assets_tests.benchmarks.quality_scores.K", K)


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, dict[str, Any]]:
    quality.main([*map(str, arguments), "--json"])
    text, last = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    return text, json.loads(last)


@pytest.mark.usefixtures("small")
def test_command_on_a_log(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    peers = [replace(peer, needs=peer.needs and "no_such_module") for peer in quality_peers.PEERS]
    monkeypatch.setattr(quality, "PEERS", peers)
    text, report = _run(capsys, "--data", data, "--dataset", "tiny", "--models", "ours,ease,als", "--seeds", 2)
    assert (report["dataset"], report["split"], report["seeds"]) == ("tiny", "lastpct-20", [0, 1])
    assert report["sizes"]["train_events"] == USERS * 12  # 15 each, 20 % of them held out
    for name in ("dssm-assets", "ease"):
        assert report[name]["filtered"].keys() == {"hit_rate@200", "sd", "se"}
        assert f"| {name} | {report[name]['filtered']['hit_rate@200']:.4f}" in text
    # A user has 12 of the 30 items of its group. With the group known, 10 of the other 18 hold its 3 with chance 10 / 18.
    assert report["dssm-assets"]["filtered"]["hit_rate@200"] > 0.4
    assert report["missing"] == {"als": "no_such_module is not installed"}


@pytest.mark.usefixtures("small")
def test_calendar_split_reports_with_and_without_prior(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--data", data, "--dataset", "tiny", "--split", "temporal-30", "--models", "ours", "--seeds", 1, "--inner")
    _, report = _run(capsys, *given)
    assert report["dssm-assets"]["filtered"]["sd"] is None  # one seed has no spread
    assert "dssm-assets without prior" in report


@pytest.mark.usefixtures("small")
def test_command_on_sequences_learns_an_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, report = _run(capsys, "--sequences", _circles(tmp_path), "--seeds", 1, "--models", "ours,popularity")
    # The next item of the circle is the only right one of 15 that are not seen, or of 5 of the own group.
    assert report["dssm-assets"]["means"]["NDCG@10"] > 0.7
    assert report["popularity"]["means"]["NDCG@10"] < 0.6
    assert "| seen items left out | HR@10 |" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data", "a", "--models", "ours,unknown"], "expected any of"),
        (["--data", "a", "--seeds", "0"], "expected at least 1"),
        ([], "required"),
        (["--sequences", "a", "--data", "b"], "not allowed"),
    ],
)
def test_wrong_arguments_are_refused(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main(given)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["ml-100k", "ml-1m"])
@pytest.mark.parametrize("split", ["lastpct-20", "loo", "temporal-60", "temporal-180"])
def test_every_split_has_settings(dataset: str, split: str) -> None:
    assert chosen(dataset, split).model.output_dim >= 64
    assert all(quality_settings.peer_settings(name, dataset, split) for name in ("ease", "als"))


# Splits of text files


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "x.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _circles(folder: Path, count: int = 120, items: int = 6) -> Path:
    """Users in two groups; each group has its own ten items and takes them around a circle."""
    starts = np.random.default_rng(1).integers(0, 10, count)
    lines = [f"{u} {' '.join(str(10 * (u % 2) + (start + i) % 10) for i in range(items))}" for u, start in enumerate(starts)]
    return _file(folder, *lines)


def test_the_last_item_of_three_or_more_is_held_out(tmp_path: Path) -> None:
    # Codes of items are in the order of the file: a 0, b 1, c 2, d 3. User v has two and trains; item d is unknown to the
    # training part; w ends with an item it had before.
    split = read_sequence_split(_file(tmp_path, "u a b c", "v c a", "x a b d", "w b c b"))
    assert split.user.tolist() == [0, 1, 2, 3] * 2
    assert split.item_ids[split.item].tolist() == [0, 2, 0, 1, 1, 0, 1, 2]
    assert split.time_s.tolist() == [DAY * 2 - 1] * 4 + [DAY * 2] * 4
    assert _truth(split) == [(0, 2), (3, 1)]
    assert (split.dropped_pairs, split.lost_users) == (1, 1)
    inner = read_sequence_split(_file(tmp_path, "u a b c d", "v c b a"), inner=True)
    assert _truth(inner) == [(0, 2)]  # of u the rest is a b c, so c; of v two are left


def _truth(split: Split) -> list[tuple[int, int]]:
    return list(zip(split.eval_users[split.truth_row].tolist(), split.item_ids[split.truth_item].tolist(), strict=True))


def test_all_last_events_are_alone_on_the_last_day(tmp_path: Path) -> None:
    split = read_sequence_split(_file(tmp_path, "u a b c d", "v c a", "w b"))  # training parts: u a b c, v c a, w b
    last = split.time_s // DAY == split.time_s.max() // DAY
    assert sorted(zip(split.user[last].tolist(), split.item_ids[split.item[last]].tolist(), strict=True)) == [
        (0, 2),
        (1, 0),
        (2, 1),
    ]
    assert (np.diff(split.time_s) >= 0).all()
    assert split.item_ids[split.item[split.by_user()[0]]].tolist() == [0, 1, 2, 2, 0, 1]


# The choice inside the training part


def _blind(added_codes: SvdInit | None = None) -> Settings:
    """Towers that learn nothing."""
    base = text_candidates(events=9, items=20, events_per_user=5.0)["poolings"]
    base = replace(base, fits=1, id_dim=8, added_codes=added_codes).with_model(output_dim=16, hidden_units=[16])
    return base.with_training(batch_size=64, epochs=1, learning_rate=1e-9, embedding_learning_rate=1e-9)


def test_the_choice_takes_the_candidate_that_finds_held_out_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads the last item knows the next one; codes know the group, neighbours the next item."""
    split, codes = read_sequence_split(_circles(tmp_path)), SvdInit(embedding="codes", score_std=10.0, ridge=100.0)
    assert choose_parts(split, {"blind": _blind()}).neighbours_std > 0
    monkeypatch.setattr(quality_choice, "NEIGHBOURS", (0.0,))
    assert [part.added_codes for part in choose_parts(split, {"blind": _blind(codes)}).parts] == [codes]
    reads = _blind().with_training(learning_rate=0.02, embedding_learning_rate=0.02, epochs=4)
    found = choose_parts(split, {"blind": _blind().with_model(poolings=[{"kind": "mean", "length": 50}]), "reads": reads})
    assert [part.model.poolings for part in found.parts] == [reads.model.poolings]
    assert 1 <= found.parts[0].training.epochs <= 4
    assert len(before_last_day(split).user) == len(split.user) - 120


# Formulas by hand


def _split(rows: Sequence[tuple[int, int, int]], rule: str) -> Split:
    return cut(distinct_log(*(np.array(column, np.int64) for column in zip(*rows, strict=True))), rule)


def test_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Users 0 and 1 each have items 0, 1, 2 in the training part; truth: user 0 item 3 and 4, user 1 item 3.
    monkeypatch.setattr("dssm_assets_tests.benchmarks.quality_scores.K", 2)
    early = [(user, item, item) for user in (0, 1) for item in (0, 1, 2)] + [(2, 3, 3), (2, 4, 4)]
    split = _split([*early, (0, 3, 9 * DAY), (0, 4, 9 * DAY), (1, 3, 9 * DAY)], "temporal-1")
    scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 2.0, 0.5, 1.5]])
    run = scored(ByScores(lambda users: scores[users]), split, 7.0)
    # Filtered leaves items 3 and 4 to both: 3 of 3. Unfiltered: user 0 gets 0 and 1, user 1 gets 2 and 4: 0 of 3.
    assert run.hits("filtered").tolist() == [2, 1]
    assert (run.rate("filtered"), run.rate("unfiltered")) == (1.0, 0.0)


def test_summary_by_hand() -> None:
    # Users 0 to 3 had item 0, and item 1 is held out of each; rates 2 / 4 and 3 / 4.
    split = _split([*((user, item, item * DAY) for user in range(4) for item in (0, 2, 1)), (9, 1, 0)], "loo")
    split = replace(split, truth_row=np.arange(4), truth_item=np.ones(4, np.int64), eval_users=np.arange(4), lost_users=1)
    runs = [
        Run({name: np.array(ranks) for name in ("filtered", "unfiltered")}, split, 5.0)
        for ranks in ([0, 200, 2, 200], [0, 2, 9, 200])
    ]
    found = summary(runs, ks=[3])
    assert found["filtered"]["hit_rate@200"] == 0.625
    assert found["filtered"]["sd"] == pytest.approx(2**0.5 / 8)
    # The mean of four users of 0 or 1: sqrt(.25 / 4) = .25 and sqrt(.1875 / 4) = .2165.
    assert found["filtered"]["se"] == pytest.approx((0.25 + 0.2165) / 2, abs=0.015)
    # Five users, one without a known item: two hits at ranks 0 and 2, and the same.
    assert found["means"] == pytest.approx({"HR@3": 0.4, "NDCG@3": (1 + 1 / math.log2(4)) / 5})
    assert summary(runs, is_seeded=False)["filtered"]["sd"] == 0.0


def test_ease_by_hand() -> None:
    # Two items of the same two users, with l2 = 1: the Gram matrix is [[3, 2], [2, 3]], its inverse
    # [[.6, -.4], [-.4, .6]], so the weight of each item for the other is .4 / .6.
    model, _ = fit_ease(_split([(0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1), (1, 2, 9)], "loo"), {"l2": 1.0}, 0)
    assert isinstance(model, ByScores)
    assert model.score(np.array([0])) == pytest.approx(np.array([[2 / 3, 2 / 3]]))


def test_neighbours_by_hand(tmp_path: Path) -> None:
    # Training parts: a b c and b c. After a comes b, and c one event later; after b twice c.
    split, late = read_sequence_split(_file(tmp_path, "u a b c a", "v b c a")), math.exp(-1 / 2.0)
    rows, columns = {0: 1 + late, 1: 2.0}, {1: 1.0, 2: 2 + late}
    expected = np.zeros((3, 3))
    for i, j, count in ((0, 1, 1.0), (0, 2, late), (1, 2, 2.0)):
        expected[i, j] = count / ((rows[i] + 3) * (columns[j] + 3)) ** 0.5
    found = find_neighbours(split, 1.0)
    weights = found.weights.toarray()
    assert weights / weights[0, 1] == pytest.approx(expected / expected[0, 1], rel=1e-5)
    queries = [[math.exp(-1.0), math.exp(-0.5), 1.0], [0, math.exp(-0.5), 1.0]]
    assert found.scores(np.array([0, 1])) == pytest.approx(np.array(queries) @ weights, rel=1e-5)
    assert found.scores(np.array([0, 1])).std(axis=1).mean() == pytest.approx(1.0, rel=1e-5)


def test_no_history_has_the_samples_own_item(data: Path) -> None:
    split, entities = read_split(data / "tiny", "lastpct-20"), read_entities(data / "tiny")
    tables = split_tables(split, entities, chosen("ml-100k", "lastpct-20"))
    samples, history = tables.samples.to_pydict(), tables.history.to_pydict()
    starts = tables.users["history_start"].to_pylist()
    for user, item, end in zip(samples["user_index"], samples["item_index"], samples["history_end"], strict=True):
        assert item not in history["item_index"][starts[user] : end]
    assert history[SEQUENCE] == [item + 1 for item in history["item_index"]]  # the rows of the item's own shared table
    late = tables.samples.set_column(2, "history_end", pa.array([end + 1 for end in samples["history_end"]]))
    with pytest.raises(LeakError):
        replace(tables, samples=late).train_data()


def test_products_of_several_fits_are_their_mean_and_added_codes_add_theirs(data: Path) -> None:
    split, entities = read_split(data / "tiny", "lastpct-20"), read_entities(data / "tiny")
    base = chosen("ml-100k", "lastpct-20").with_training(epochs=1, batch_size=64)
    codes = SvdInit(embedding="codes", score_std=0.1)
    both, _ = fit_vectors(split, entities, replace(base, fits=2, added_codes=codes), 1)  # seeds 2 and 3
    alone = [fit_vectors(split, entities, base, seed)[0] for seed in (2, 3)]
    added = code_vectors(split, codes)
    expected = sum(one.users @ one.items.T for one in alone) / 2 + added.users @ added.items.T
    assert both.users @ both.items.T == pytest.approx(expected, abs=1e-5)


def test_sasrec_learns_an_order(tmp_path: Path) -> None:
    """Items go around a circle: the next one is one of 14 that are not seen, or of 4 of the own group."""
    pytest.importorskip("rectools.models.nn.transformers.sasrec")
    split = read_sequence_split(_circles(tmp_path))
    settings = {**TEXT_PEERS["sasrec"], "n_factors": 16, "dropout_rate": 0.1, "lr": 0.02, "epochs": 15}
    lists = fit_sasrec(split, settings, 0)[0].lists(split.eval_users, 1, split.seen())
    assert (lists[split.truth_row, 0] == split.truth_item).mean() > 0.7
