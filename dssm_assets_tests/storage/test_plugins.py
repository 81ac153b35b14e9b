"""Plug-ins: what names them, where they are found, what is said of those that cannot be imported."""

import pickle
import signal
import subprocess
import sys

import pytest

from dssm_assets.cli import main
from dssm_assets.core.asset_settings import digest_settings
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.models.losses import LOSSES
from dssm_assets.storage.config_file import config_from_json, config_to_json
from dssm_assets_tests.own_project import CHANGES
from dssm_assets_tests.worlds import write_config


def test_a_configuration_names_what_its_plugins_register(own_project):
    config = write_config(own_project, CHANGES).config
    assert (config.model.loss, config.model.sampler, config.model.poolings[0].kind) == ("bpr", "rare_first", "halving")
    assert config.evaluation.extra_baselines == ["least_popular"]
    assert "length_feature" in OPERATORS  # of the entry point, which no configuration names


def test_names_that_nothing_registers_lead_to_the_key(tmp_path, forgetting):
    with pytest.raises(ConfigError) as error:
        write_config(tmp_path, CHANGES | {"plugins": []})
    faults = {fault.where.rpartition(" ")[2]: fault for fault in error.value.faults}
    remedy = "correct the value, or name the module that registers it in the key plugins"
    assert {faults[f"model.{key}"].remedy for key in ("loss", "sampler", "poolings.0.kind")} == {remedy}
    assert (faults["model.loss"].expected, faults["model.loss"].got) == ("a registered loss: softmax, sigmoid, l2", "'bpr'")
    assert faults["model.sampler"].expected == "a registered sampler: uniform, weighted, all, v2, mixed, hard, hard_v2"
    assert "of als, got least_popular" in faults["evaluation.extra_baselines"].got


def test_what_cannot_be_imported_is_listed_with_the_other_faults(forgetting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_losses.py").write_text("import math\n\nmath.sqrt(-1)\n")
    (tmp_path / "broken_names.py").write_text("def loss(:\n")
    (tmp_path / "broken_needs.py").write_text("import broken_library\n")
    (tmp_path / "broken_exit.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "broken_base.py").write_text("raise BaseException('all of it')\n")
    named = ["broken_losses", "broken_names", "broken_needs", "broken_exit", "not_here.losses", "broken_base"]
    with pytest.raises(ConfigError) as error:
        write_config(tmp_path, {"plugins": named, "window": {"days": 0}})
    *plugins, window = error.value.faults
    assert window.where == "configuration config.yaml, key window.days"
    assert [fault.where for fault in plugins] == [f"configuration config.yaml, key plugins.{number}" for number in range(6)]
    assert plugins[0].got.endswith(f"ValueError: math domain error ({tmp_path}/broken_losses.py, line 3)")
    assert "'broken_names': SyntaxError: " in plugins[1].got and "(broken_names.py, line 1)" in plugins[1].got
    assert f"No module named 'broken_library' ({tmp_path}/broken_needs.py, line 1)" in plugins[2].got
    assert plugins[3].got == f"'broken_exit': SystemExit: 3 ({tmp_path}/broken_exit.py, line 1)"
    assert plugins[5].got == f"'broken_base': BaseException: all of it ({tmp_path}/broken_base.py, line 1)"
    assert plugins[4].got == "'not_here.losses': no module not_here"
    assert plugins[4].remedy.endswith(
        f"pip install the project that has it, or run this in the folder that holds not_here, now {tmp_path}"
    )


def test_ctrl_c_while_a_plugin_is_imported_ends_the_process(forgetting, tmp_path, monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow_names.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    with pytest.raises(KeyboardInterrupt):
        write_config(tmp_path, {"plugins": ["slow_names"]})


def test_a_broken_entry_point_names_its_package(own_project):
    (own_project / "site" / "own_features.py").write_text("raise RuntimeError('no operator')\n")
    with pytest.raises(ConfigError, match="RuntimeError: no operator") as error:
        write_config(own_project)
    assert error.value.faults[0].where == "package own-features, entry point own_features of dssm_assets.plugins"


def test_a_plugin_changes_no_digest_and_a_name_of_it_does(own_project):
    def digest(changes):
        loaded = write_config(own_project, changes)
        return digest_settings(loaded.config, loaded.fg, loaded.read_fg_file)

    plain = digest({})
    assert digest({"plugins": ["own_recall.ranking"]}) == plain
    named = digest({"plugins": ["own_recall.ranking"], "evaluation": {"extra_baselines": ["least_popular"]}})
    assert {asset for asset in plain if named[asset] != plain[asset]} == {
        "ground_truth", "channel_weights", "hit_counts", "hit_rate_detail", "total_hit_rate",
    }  # fmt: skip
    assert digest(CHANGES)["dssm_model"] != plain["dssm_model"]


RECEIVER = """\
import pickle, sys
from pathlib import Path
sys.path.append("site")
loaded = pickle.loads(Path("loaded.pickle").read_bytes())
import colorsys
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.models.losses import LOSSES
print(loaded.config.model.loss in LOSSES, "length_feature" in OPERATORS, sys.path[-1])
"""


def test_a_process_that_receives_a_configuration_finds_its_plugins_in_the_current_folder(own_project):
    (own_project / "loaded.pickle").write_bytes(pickle.dumps(write_config(own_project, CHANGES)))
    (own_project / "colorsys.py").write_text("raise RuntimeError('hides a module of Python')\n")
    # With -P, as in a console script, Python itself does not search the current folder.
    done = subprocess.run([sys.executable, "-P", "-c", RECEIVER], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == (f"True True {own_project}\n", "")


def test_jobs_in_other_processes_import_them_again(own_project):
    loaded = write_config(own_project, CHANGES)
    given = config_to_json(loaded)
    del LOSSES["bpr"], sys.modules["own_recall.ranking"]
    assert config_from_json(given).config == loaded.config
    assert "bpr" in LOSSES


def test_a_bundle_without_a_configuration_has_the_entry_points(own_project, capsys):
    assert main(["recall", "--bundle", "none", "--user-id", "1"]) == 1
    assert "length_feature" in OPERATORS
