"""The quality benchmark on a generated log of two groups: it runs, learns, and reports the requested models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dssm_assets_tests.benchmarks import quality, quality_peers, quality_settings
from dssm_assets_tests.benchmarks.quality_features import (
    read_entities,
)
from dssm_assets_tests.benchmarks.quality_settings import Settings, ablations, chosen
from dssm_assets_tests.benchmarks.quality_splits import read_split
from dssm_assets_tests.benchmarks.quality_tiny import USERS, write_tiny

K = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_tiny(folder / "tiny")
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lists, small towers, few steps."""

    def quick(dataset: str, split: str) -> Settings:
        pace = {"epochs": 8, "batch_size": 64, "weight_average": 0.9, "learning_rate": 0.02, "embedding_learning_rate": 0.02}
        settings = replace(chosen(dataset, split), id_dim=8, side_dim=4)
        return settings.with_model(output_dim=16 + settings.code_dim, hidden_units=[16]).with_training(**pace)

    monkeypatch.setattr(quality, "chosen", quick)
    monkeypatch.setattr("dssm_assets_tests.benchmarks.quality_scores.K", K)


def _run(data: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--dataset", "tiny", *more]


@pytest.mark.usefixtures("small")
def test_last_line_is_the_report_as_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality.main(_run(data, "--models", "ours,ease", "--seeds", "2", "--json"))
    *text, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert (report["dataset"], report["split"]) == ("tiny", "lastpct-20")
    assert report["seeds"] == [0, 1]
    assert report["sizes"]["train_events"] == USERS * 12  # 15 each, 20 % of them held out
    for name in ("dssm-assets", "ease"):
        for variant in ("filtered", "unfiltered"):
            assert report[name][variant].keys() == {"hit_rate@200", "sd", "se"}
            assert 0 < report[name][variant]["hit_rate@200"] <= 1
        assert report[name]["samples_per_cpu_s"] > 0
        assert f"| {name} | {report[name]['filtered']['hit_rate@200']:.4f}" in "\n".join(text)
    # A user has 12 of the 30 items of its group. With the group known, 10 of the other 18 hold its 3 with chance 10 / 18.
    assert report["dssm-assets"]["filtered"]["hit_rate@200"] > 0.4
    assert report["settings"]["dssm-assets"]["model"]["output_dim"] == 16
    assert report["settings"]["ease"] == {"l2": 700.0}


@pytest.mark.usefixtures("small")
def test_calendar_split_reports_with_and_without_prior(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality.main(_run(data, "--split", "temporal-30", "--models", "ours", "--seeds", "1", "--inner", "--json"))
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    assert report["dssm-assets"]["filtered"]["sd"] is None  # one seed has no spread
    assert "dssm-assets without prior" in report
    assert report["settings"]["dssm-assets"]["prior"] == {"popularity": 0.0, "recent": 0.4, "half_life_days": 5.0}
    assert report["settings"]["dssm-assets"]["model"]["frozen_embedding"] == "code"
    assert "with the best prior for this split" in captured.err


def test_missing_peer_is_named_and_not_invented(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = [replace(peer, needs=peer.needs and "no_such_module") for peer in quality_peers.PEERS]
    monkeypatch.setattr(quality, "PEERS", peers)
    quality.main(_run(data, "--models", "als,rectools", "--json"))
    *text, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert report["missing"] == dict.fromkeys(("als", "rectools"), "no_such_module is not installed")
    assert not {"als", "rectools"} & report.keys()
    assert "als: no_such_module is not installed" in text


@pytest.mark.usefixtures("small")
def test_ablation_reports_every_change(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality.main(_run(data, "--seeds", "1", "--ablation", "chosen", "no history", "sampled negatives", "side", "--json"))
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    changes = ["as chosen", "no history", "no side features", "+ 1,024 sampled negatives", "1,024 sampled negatives alone"]
    assert [name for name in report if name in ablations(chosen("ml-100k", "loo"))] == changes
    assert report["settings"]["no history"]["model"]["history_length"] == 0
    assert len({report[name]["filtered"]["hit_rate@200"] for name in changes}) > 1


@pytest.mark.parametrize("wrong", [["--models", "ours,unknown"], ["--seeds", "0"]])
def test_wrong_arguments_are_refused(data: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quality.main(_run(data, *wrong))
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["ml-100k", "ml-1m"])
@pytest.mark.parametrize("split", ["lastpct-20", "loo", "temporal-60", "temporal-180"])
def test_every_ablation_changes_something(dataset: str, split: str) -> None:
    settings = chosen(dataset, split)
    changed = [one.to_json() for one in ablations(settings).values()]
    assert len({json.dumps(one) for one in changed}) == len(changed)
    assert len(changed) >= 12  # a split may already lack what an ablation removes
    assert changed[0] == settings.to_json()
    with_settings = [peer for peer in quality_peers.PEERS if peer.name != "popularity" and not peer.texts_only]
    assert all(quality_settings.peer_settings(peer.name, dataset, split) for peer in with_settings)


@pytest.mark.parametrize(
    "peer", [peer for peer in quality_peers.PEERS if peer.needs and not peer.texts_only], ids=lambda peer: peer.name
)
def test_peer_if_it_is_installed(peer: quality_peers.Peer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not peer.is_installed:
        pytest.skip(f"{peer.needs} is not installed: pip install -e '.[bench]'")
    monkeypatch.chdir(tmp_path)
    split, entities = read_split(data / "tiny", "lastpct-20"), read_entities(data / "tiny")
    few = {"als": {"factors": 4}, "rectools": {"n_factors": 16, "epochs": 40, "lr": 1e-2}}
    settings = quality_settings.peer_settings(peer.name, "ml-100k", "lastpct-20") | few[peer.name]
    model, speed = peer.fit(split, settings, 0, entities)
    lists = model.lists(split.eval_users, K, split.seen())
    own = lists // 30 == (split.eval_users % 2)[:, None]
    assert own.mean() > 0.8  # ids and item numbers are equal; random lists would have half
    assert speed > 0
    assert not list(tmp_path.iterdir())
