"""docker-compose.yaml, read as docker compose reads it, for a place without containers.

Anchors are YAML's own; `${NAME:-default}` and `${NAME:?message}` are filled in from an environment file's variables; the
folders of the containers become folders below one root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "docker-compose.yaml"
CONTAINER_FOLDERS = (
    "/opt/dagster/home",
    "/opt/dssm/config",
    "/var/lib/dssm",
    "/var/lib/postgresql/data",
    "/data",
    "/etc/seaweedfs",
)
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True)
class Service:
    """One service: the command and environment of its process, its health check (empty if it ends by itself), whom it waits for."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health_check: tuple[str, ...]
    needs: tuple[str, ...]


def environment_file(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def services(variables: Mapping[str, str], root: Path | None = None) -> dict[str, Service]:
    """Returns the services of the file in the order in which they can be started.

    Args:
        variables: what `.env` would say.
        root: the folder below which the containers' folders are looked for; None leaves their paths as they are.

    Raises:
        ValueError: a variable that must be set is not.
    """
    found = {name: _service(name, body, variables, root) for name, body in raw()["services"].items()}
    ordered: dict[str, Service] = {}
    while len(ordered) < len(found):
        ready = [name for name in found if name not in ordered and set(found[name].needs) <= set(ordered)]
        ordered |= {name: found[name] for name in ready}
        if not ready:
            raise ValueError(f"services wait for each other: {sorted(set(found) - set(ordered))}")
    return ordered


def config_files(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the contents of the section `configs`, by the path in the container.

    Raises:
        ValueError: a variable that must be set is not.
    """
    body = raw()
    mounted = [one for service in body["services"].values() for one in service.get("configs", ())]
    return {one["target"]: _filled(body["configs"][one["source"]]["content"], variables) for one in mounted}


def raw() -> dict[str, Any]:
    """Returns the file as YAML reads it."""
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")))


def _service(name: str, body: Mapping[str, Any], variables: Mapping[str, str], root: Path | None) -> Service:
    def plain(value: object) -> str:
        return _below(_filled(str(value), variables), root)

    kind, *check = body.get("healthcheck", {"test": ["CMD"]})["test"]
    if kind != "CMD":
        raise ValueError(f"service {name}: a health check of kind {kind}; only CMD is read here")
    return Service(
        name=name,
        command=tuple(plain(part) for part in body["command"]),
        environment={key: plain(value) for key, value in body.get("environment", {}).items()},
        health_check=tuple(plain(part) for part in check),
        needs=tuple(body.get("depends_on", {})),
    )


def _filled(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        given = variables.get(name, "")
        if operator == "?" and not given:
            raise ValueError(f"{name}: {rest}")
        return given or (rest if operator == "-" else "")

    return _VARIABLE.sub(value, text)


def _below(text: str, root: Path | None) -> str:
    if root is None:
        return text
    pattern = "|".join(re.escape(folder) for folder in CONTAINER_FOLDERS)
    return re.sub(rf"(?<![\w/.])({pattern})(?=/|$)", lambda match: f"{root}{match.group(1)}", text)
