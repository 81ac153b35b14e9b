"""`dssm-assets recall` and `dssm-assets serve`, over the hand-written bundle (`bundles.py`)."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest

from dssm_assets.cli import build_parser, main
from dssm_assets.core.errors import InputError
from dssm_assets_tests.service import bundles


@pytest.fixture
def run(root, capsys):
    def call(*arguments):
        parsed = build_parser().parse_args(["recall", "--bundle", root, *arguments])
        assert parsed.command(parsed) == 0
        printed, line = capsys.readouterr(), f"bundle {root} (--bundle), no configuration\n"
        assert line == printed.err if "--json" in arguments else printed.out.startswith(line)
        return printed.out.removeprefix(line)

    return call


def test_recall_prints_the_list_of_a_stored_user(run, folder):
    head = f"items, source stored, bundle {folder.name}\n rank  item  score"
    assert run("--user-id", "u", "-k", "2") == f"2 {head}\n    1  n0  1\n    2  n2  0.6\n"


def test_recall_names_the_columns_of_its_rows(tmp_path, capsys):
    colours = pa.table({"colour": ["red", None, "blue", None]})
    bundles.write_bundle(tmp_path, has_channels=True, item_columns=colours)
    assert main(["recall", "--bundle", str(tmp_path), "--user-id", "nobody", "-k", "2", "--fields", "colour"]) == 0
    *_, head, first, second = capsys.readouterr().out.splitlines()
    assert (head, first, second) == (
        " rank  item  score  channels  colour",
        "    1  n2  3  popular  blue",
        "    2  n3  2  popular",
    )


def test_json_flag_prints_one_object(run, folder):
    answer = json.loads(run("--user-id", "u", "-k", "2", "--exclude", "n0", "n1", "--json"))
    assert (answer["source"], answer["item_ids"], answer["bundle_id"]) == ("stored", ["n2", "n3"], folder.name)


def test_recall_accepts_features_and_history(run):
    answer = json.loads(run("--features", '{"city": "x"}', "--history", '{"item_ids": ["n1"]}', "-k", "1", "--json"))
    assert (answer["source"], answer["item_ids"]) == ("features", ["n2"])
    assert run("--features", '{"city": "x", "age": 3}', "-k", "1").startswith(
        "ignored, because nothing reads them: age\n1 items, source features"
    )


def test_recall_adds_events_and_says_what_is_replaced(tmp_path, capsys):
    bundles.write_bundle(tmp_path, stores_inputs=True)
    arguments = ["recall", "--bundle", str(tmp_path), "--user-id", "u", "-k", "1"]
    events = '{"item_ids": ["n2"], "event_times_ms": [3000]}'
    # City and the last two of n0, n1, n2: (1.3, .9), of which n2 has 1.5; of n2 alone (1.6, .8) and n0 1.6.
    assert main([*arguments, "--events", events]) == 0
    assert capsys.readouterr().out.endswith("    1  n2  1.5\n")
    assert main([*arguments, "--history", events]) == 0
    assert "used in place of the stored inputs: the given history\n" in capsys.readouterr().out
    assert main([*arguments, "--history", events, "--events", events]) == 1
    assert "expected one of them, got both" in capsys.readouterr().err


def test_recall_falls_back_to_popular_items_and_finds_similar_items(run):
    assert json.loads(run("--user-id", "unknown", "-k", "1", "--json"))["source"] == "popular"
    assert json.loads(run("--item-id", "n2", "-k", "2", "--json"))["item_ids"] == ["n1", "n0"]


@pytest.mark.parametrize("arguments", [[], ["--user-id", "u", "--item-id", "n0"]])
def test_recall_needs_either_a_user_or_an_item(run, arguments):
    with pytest.raises(InputError, match="a user or an item"):
        run(*arguments)


def test_features_that_are_not_json_are_a_usage_error(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--features", "age=5")
    assert ended.value.code == 2
    assert "argument --features: not JSON" in capsys.readouterr().err


def test_recall_and_the_service_import_neither_torch_nor_dagster(root):
    code = (
        "import sys; from dssm_assets.service.engine.recall_engine import RecallEngine, UserRequest; from dssm_assets.service.engine.request_encoder import UserInputs;"
        "RecallEngine.open(sys.argv[1]).recall(UserRequest(inputs=UserInputs({'city': 'x'})));"
        "print([name for name in ('torch', 'dagster', 'ibis', 'fastapi') if name in sys.modules]);"
        "import dssm_assets.service.http.app, dssm_assets.service.engine.channels;"
        "print([name for name in ('torch', 'dagster') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize("command", [("serve",), ("recall", "--user-id", "u")])
def test_a_configuration_beside_a_bundle_is_refused(capsys, command):
    assert main([*command, "--bundle", "nowhere", "--config", "shop.yaml"]) == 1
    assert "--config: expected no --config beside --bundle" in capsys.readouterr().err
