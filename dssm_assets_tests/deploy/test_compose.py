"""docker-compose.yaml and the Dockerfile: valid for their tools, and safe to run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.request import urlopen

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for

from dssm_assets.cli import build_parser
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.storage.layout import serving_root
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.compose_file import CONTAINER_FOLDERS, DEPLOY, config_files, environment_file, raw, services
from dssm_assets_tests.deploy.services import HOST, running
from dssm_assets_tests.service.bundles import write_bundle

SET = {"DAGSTER_PG_PASSWORD": "a", "AWS_ACCESS_KEY_ID": "b", "AWS_SECRET_ACCESS_KEY": "c"}


def _dockerfile() -> list[list[str]]:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_compose_file_is_valid() -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    assert [f"{error.json_path}: {error.message}" for error in validator_for(schema)(schema).iter_errors(raw())] == []


def test_passwords_are_required_and_not_in_the_file() -> None:
    for name in SET:
        with pytest.raises(ValueError, match=f"{name}: set it in deploy/.env"):
            services({key: value for key, value in SET.items() if key != name})
    assert services(SET)["postgres"].environment["POSTGRES_PASSWORD"] == "a"


def test_example_environment_has_exactly_the_variables_of_the_file() -> None:
    example = DEPLOY / "env.example"
    assert environment_file(example) == dict.fromkeys(SET, "")
    named = re.findall(r"^(?:# )?([A-Z_]+)=", example.read_text(encoding="utf-8"), re.MULTILINE)
    text = (DEPLOY / "docker-compose.yaml").read_text(encoding="utf-8")
    assert all(f"${{{name}:" in text for name in named)


def test_no_service_can_gain_privileges() -> None:
    bodies = raw()["services"]
    assert all(body["security_opt"] == ["no-new-privileges:true"] and body["cap_drop"] == ["ALL"] for body in bodies.values())
    assert {name for name, body in bodies.items() if "cap_add" in body} == {"postgres", "object-store"}


def test_the_key_pair_may_use_its_bucket_and_nothing_else() -> None:
    (content,) = config_files({**SET, "DSSM_LOG_BUCKET": "mine"}).values()
    (identity,) = json.loads(content)["identities"]
    assert identity["credentials"] == [{"accessKey": "b", "secretKey": "c"}]
    assert identity["actions"] == ["Read:mine", "Write:mine", "List:mine", "Tagging:mine"]
    assert "mine" in " ".join(services({**SET, "DSSM_LOG_BUCKET": "mine"})["bucket"].command)


def test_every_service_has_a_health_check_and_restarts() -> None:
    bodies = raw()["services"]
    assert bodies.pop("bucket")["restart"] == "no", "it ends"
    for body in bodies.values():
        assert body["healthcheck"]["test"][0] == "CMD"
        assert body["restart"] == "unless-stopped"


def test_only_the_ui_and_the_recall_service_have_ports_and_only_on_this_machine() -> None:
    ports = {name: body["ports"] for name, body in raw()["services"].items() if "ports" in body}
    assert list(ports) == ["webserver", "recall"]
    assert all(port.startswith("127.0.0.1:") for given in ports.values() for port in given)


def test_the_recall_service_starts_on_request_without_the_database_s_password() -> None:
    bodies, service = raw()["services"], services(SET)["recall"]
    assert {name: body["profiles"] for name, body in bodies.items() if "profiles" in body} == {"recall": ["recall"]}
    assert bodies["recall"]["image"] == bodies["code-server"]["image"]
    assert service.environment.items() < services(SET)["code-server"].environment.items()
    assert [name for name in service.environment if name.startswith(("DAGSTER_", "POSTGRES_"))] == []
    assert callable(build_parser().parse_args(service.command[1:]).command)
    grace = int(bodies["recall"]["stop_grace_period"].removesuffix("s"))
    assert grace > ServiceLimits().shutdown_seconds


@pytest.mark.slow
def test_the_recall_service_answers_from_the_bundle_of_the_scene(tmp_path: Path) -> None:
    write_bundle(Path(serving_root(str(tmp_path / "tables"))))
    with running(tmp_path) as made:
        worlds.write_config(made.config_folder, {"storage": {"root": str(tmp_path / "tables")}})
        made.start("recall")
        with urlopen(f"http://{HOST}:{made.variables['DSSM_RECALL_PORT']}/recall?user_id=u&k=3", timeout=10) as answer:
            assert json.load(answer)["item_ids"] == ["n0", "n2", "n1"]  # user (1, 0) with (1, 0), (.6, .8), (0, 1)


def test_image_starts_the_code_server() -> None:
    (command,) = [rest for word, rest in _dockerfile() if word == "CMD"]
    assert shlex.split(command.strip("[]").replace(",", " ")) == list(services(SET)["code-server"].command)


def test_the_image_runs_without_root_from_locked_versions() -> None:
    lines = _dockerfile()
    assert [rest for word, rest in lines if word == "USER"] == ["10001:10001"]
    assert [rest.split()[0] for word, rest in lines if word == "FROM"] == ["python:3.11-slim"] * 2
    installs = [rest for word, rest in lines if word == "RUN" and "pip install" in rest]
    assert all("--constraint deploy/constraints.txt" in rest or "--no-deps" in rest for rest in installs)


def test_the_image_has_every_file_and_folder_that_the_services_name() -> None:
    lines = _dockerfile()
    copied = [part for word, rest in lines if word == "COPY" and "--from" not in rest for part in rest.split()[:-1]]
    sources = [part for part in copied if not part.startswith("--")]
    assert all((DEPLOY.parent / source).exists() for source in sources)
    made = " ".join(rest for word, rest in lines if word == "RUN")
    assert all(folder in made for folder in CONTAINER_FOLDERS if folder.startswith(("/opt", "/var/lib/dssm")))
