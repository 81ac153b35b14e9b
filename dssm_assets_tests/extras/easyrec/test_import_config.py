"""`dssm-assets import-config` and `export-config`: files, a training run with what was imported, and a day written and read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dssm_assets.cli import main
from dssm_assets.core.statistics.feature_rules import FeatureInfo
from dssm_assets.extras.easyrec.command import SYSTEMS
from dssm_assets.extras.easyrec.import_pipeline import import_pipeline
from dssm_assets.extras.easyrec.import_settings import EASYREC, TORCH
from dssm_assets.extras.easyrec.text_format import Message, parse_text_format
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.easyrec.configurations import EASYREC_MIND, TORCH_DSSM, UNKNOWN_SEQUENCES
from dssm_assets_tests.extras.easyrec.field_tables import read_faults
from dssm_assets_tests.page_folder import PIPELINE_CONFIG
from dssm_assets_tests.worlds import EVALUATION_DAY


def test_a_configuration_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pipeline.config").write_text(TORCH_DSSM, encoding="utf-8")
    command = ["import-config", str(tmp_path / "pipeline.config"), "--out", str(tmp_path / "ours")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    report = (tmp_path / "ours" / "import_report.md").read_text(encoding="utf-8")
    assert report in printed and "What has no counterpart" in report
    loaded = load_config(tmp_path / "ours" / "config.yaml", tmp_path)
    assert loaded.config.model.output_dim == 24
    assert main(command) == 1
    assert "expected no such file, got an existing one" in capsys.readouterr().err
    (tmp_path / "fg.json").write_text('{"features": []}' + " " * (5 << 20), encoding="utf-8")
    assert main(["import-config", str(tmp_path / "pipeline.config"), str(tmp_path / "fg.json"), *command[2:], "--force"]) == 0
    (tmp_path / "base.yaml").write_text("calendar: {start: 2026-01-01}\nevents: [buy]\n", encoding="utf-8")
    assert main([*command, "--force", "--base", str(tmp_path / "base.yaml")]) == 1
    assert "configuration base.yaml, key events: expected" in capsys.readouterr().err


def test_sections_of_a_base_and_a_named_sequence_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "mind of today.config", tmp_path / "ours"
    path.write_text(UNKNOWN_SEQUENCES, encoding="utf-8")
    base = {
        "calendar": {"start": "2026-02-01"},
        "tables": {"behavior": {"uri": "/log", "layout": "time_column"}},
        "events": {"funnel": ["buy"], "positive": ["buy"]},
        "features": {"fg_path": "fg.json"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    command = ["import-config", str(path), "--out", str(out), "--base", str(tmp_path / "base.yaml")]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert "mind of today.config, the history of MIND: expected a sequence of the user tower with a known column of" in printed
    assert not out.exists()
    assert main([*command, "--sequence-column", "seen_a=sku"]) == 0
    written = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert written["events"] == base["events"]
    features = json.loads((out / "fg.json").read_text(encoding="utf-8"))["features"]
    (history,) = [entry for entry in features if "features" in entry]
    assert [(sub["feature_name"], sub["expression"]) for sub in history["features"]] == [("seen_a", "user:item_ids")]


def test_sequence_columns_and_files_of_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mind.config"
    path.write_text(EASYREC_MIND, encoding="utf-8")
    command = ["import-config", str(path), "--out", str(tmp_path / "ours")]
    assert main([*command, "--sequence-column", "bought=sku"]) == 0
    capsys.readouterr()
    (tmp_path / "words.txt").write_text("rome\noslo\n", encoding="utf-8")
    words = 'vocab_file: "words.txt" default_bucketize_value: 1'
    path.write_text(TORCH_DSSM.replace('vocab_list: ["rome", "oslo"]', words), encoding="utf-8")
    assert main([*command, "--force"]) == 0
    assert (tmp_path / "ours" / "words.txt").read_text(encoding="utf-8") == "rome\noslo\n"
    path.write_text("model_config {", encoding="utf-8")
    assert main([*command, "--force"]) == 1
    assert "mind.config, line 1, column 15: expected protocol buffers' text format" in capsys.readouterr().err


def test_files_of_features_are_found_from_the_configuration_whatever_folder_is_the_current_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration of a repository names a tokenizer from the repository's root."""
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    for folder, city in ((repository, "oslo"), (elsewhere, "bonn")):
        (folder / "data" / "test").mkdir(parents=True)
        (folder / "data" / "test" / "words.txt").write_text(f"rome\n{city}\n", encoding="utf-8")
    path = repository / "examples" / "dssm.config"
    path.parent.mkdir()
    words = 'vocab_file: "data/test/words.txt" default_bucketize_value: 1'
    path.write_text(TORCH_DSSM.replace('vocab_list: ["rome", "oslo"]', words), encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    command = ["import-config", str(path), "--out", str(tmp_path / "ours"), "--force"]
    assert main(command) == 0
    assert (tmp_path / "ours" / "data" / "test" / "words.txt").read_text(encoding="utf-8") == "rome\noslo\n"
    monkeypatch.chdir(repository)
    assert main(["import-config", "examples/dssm.config", *command[2:]]) == 0
    (repository / "data" / "test" / "words.txt").unlink()
    monkeypatch.chdir(elsewhere)  # whose own file is another one
    assert main(command) == 1
    refusal = f"'data/test/words.txt' cannot be read: it is neither in {path.parent} nor in the folders above"
    assert refusal in capsys.readouterr().err


@pytest.mark.slow
def test_an_imported_configuration_trains(tmp_path: Path) -> None:
    worlds.write_world(tmp_path)
    (tmp_path / "pipeline.config").write_text(PIPELINE_CONFIG, encoding="utf-8")
    command = [
        "import-config",
        str(tmp_path / "pipeline.config"),
        "--base",
        str(tmp_path / "config.yaml"),
        "--out",
        str(tmp_path / "ours"),
    ]
    assert main(command) == 0
    loaded = load_config(tmp_path / "ours" / "config.yaml", tmp_path / "home")
    assert loaded.config.raw_features.history_columns == ["category"]
    workspace = worlds.build_all(loaded)
    rates = workspace.tables.read(workspace.need("total_hit_rate", EVALUATION_DAY)).to_pylist()
    found = {(row["scorer"], row["scope"], row["population"], row["k"]): row["hit_rate"] for row in rates}
    # Of 20 items a user takes those of one group of 10: drawn at random half are found among 10, by a model that knows the group all.
    assert found["model", "all", "warm", 10] > 0.9


def test_a_day_is_written_with_its_tables_and_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert SYSTEMS == (TORCH, EASYREC)
    world = worlds.built_world(tmp_path_factory)
    workspace = world.workspace
    monkeypatch.setenv("DSSM_CONFIG", str(world.loaded.path))
    monkeypatch.setenv("DSSM_HOME", str(world.loaded.home))
    rows = workspace.tables.read(workspace.need("feature_config", EVALUATION_DAY)).to_pylist()
    infos = {row["feature"]: FeatureInfo.model_validate_json(row["feature_info"]) for row in rows if row["feature_info"]}
    sampler_tables = pytest.importorskip("dssm_assets.extras.sampler_tables.sampler_tables")
    _, attrs = sampler_tables.write_sampler_tables(workspace, EVALUATION_DAY, tmp_path)
    for system in SYSTEMS:
        out = tmp_path / f"{system}.config"
        assert main(["export-config", "--day", EVALUATION_DAY, "--system", system, "--out", str(out)]) == 0
        text = out.read_text(encoding="utf-8")
        assert read_faults(text, system) == []
        tables = _tables(parse_text_format(text, system), system)
        assert set(tables) == set(infos)
        for name, info in infos.items():
            found = tables[name]
            assert found["embedding_dim"] == [info.embedding_dim]
            assert found.get("boundaries") == (info.boundary or None)
            assert info.vocab_size is None or found["hash_bucket_size"] == [5 * info.vocab_size]
        assert "# not expressed: model.logq = 1.0\n" in text
        assert "# not expressed: training.warmup_frac = 0.05: the learning rate is constant there\n" in text
        read = import_pipeline(text, base=yaml.safe_load(world.loaded.path.read_text(encoding="utf-8")))
        kept = {"output_dim", "hidden_units", "similarity", "temperature", "sampler", "num_sample", "dropout", "history_length"}
        assert read.config.model.model_dump(include=kept) == world.loaded.config.model.model_dump(include=kept)
        kept = {"batch_size", "epochs", "learning_rate", "embedding_learning_rate", "embedding_optimiser", "weight_decay"}
        assert read.config.training.model_dump(include=kept) == world.loaded.config.training.model_dump(include=kept)
        (data,) = (entry.value for entry in parse_text_format(text, system).entries if entry.name == "data_config")
        assert isinstance(data, Message)
        (sampler,) = (entry.value for entry in data.entries if entry.name == "negative_sampler")
        assert isinstance(sampler, Message)
        assert [entry.value for entry in sampler.entries if entry.name == "attr_fields"] == attrs
    capsys.readouterr()
    assert main(["export-config", "--day", EVALUATION_DAY, "--system", SYSTEMS[0]]) == 0
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / f"{SYSTEMS[0]}.config").read_text(encoding="utf-8")
    assert printed.err.startswith("configuration ")


def _tables(root: Message, system: str) -> dict[str, dict[str, list[object]]]:
    """Returns feature -> field -> values."""
    found: dict[str, dict[str, list[object]]] = {}

    def add(definition: Message, prefix: str = "") -> None:
        fields: dict[str, list[object]] = {}
        for entry in definition.entries:
            fields.setdefault(entry.name, []).append(entry.value)
        if "sequence_name" in fields:
            for inner in fields["features"]:
                assert isinstance(inner, Message)
                (entry,) = inner.entries
                assert isinstance(entry.value, Message)
                add(entry.value, f"{fields['sequence_name'][0]}__")
        else:
            found[f"{prefix}{fields['feature_name'][0]}"] = fields

    for entry in root.entries:
        if entry.name == "feature_configs" and isinstance(entry.value, Message):
            inner = entry.value.entries[0].value
            add(inner if isinstance(inner, Message) else entry.value)
    return found
