"""README and the architecture page are true: paths exist, commands parse, the example runs."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.defs.asset_table import all_rows
from dssm_assets_tests import worlds

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def _tree_paths() -> list[str]:
    (tree,) = _blocks("text")
    paths: list[str] = []
    stack: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        name = line.split()[0].rstrip(",")
        del stack[depth:]
        paths.append("/".join([*stack, name.rstrip("/")]))
        if name.endswith("/"):
            stack.append(name.rstrip("/"))
    return paths


def test_every_path_of_the_tree_exists() -> None:
    missing = [path for path in _tree_paths() if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()]
    assert missing == []


def test_every_package_folder_is_in_the_tree() -> None:
    packages = [folder for folder in (ROOT / "dssm_assets").iterdir() if (folder / "__init__.py").is_file()]
    packages += [folder for folder in (ROOT / "dssm_assets" / "core").iterdir() if (folder / "__init__.py").is_file()]
    unnamed = {folder.relative_to(ROOT).as_posix() for folder in packages} - set(_tree_paths())
    assert unnamed == set()


def test_the_first_command_takes_torch_for_cpus() -> None:
    """Of two indexes pip takes the newest version, and 2.15.0+cpu is newer than 2.15.0."""
    install = shlex.split(_blocks("bash")[0].partition("&&")[0])
    index = install[install.index("--extra-index-url") + 1]
    assert install[-2:] == ["-e", ".[demo]"]
    assert f"ARG TORCH_INDEX={index}\n" in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = [needed for text in project["dependencies"] if (needed := Requirement(text)).name == "torch"]
    plain, cpu = Version("2.15.0"), Version("2.15.0+cpu")
    assert max(plain, cpu) is cpu and {plain, cpu} == set(torch.specifier.filter([plain, cpu]))


def test_smallest_configuration_is_valid() -> None:
    page = (ROOT / "docs" / "platform.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL) if "calendar:" in block)
    config = parse_config(yaml.safe_load(example))
    assert config.events.positive == ["click", "buy"]


def test_every_asset_is_named() -> None:
    assert [row.name for row in all_rows() if f"`{row.name}`" not in README] == []


def test_every_described_component_of_the_reference_has_an_asset() -> None:
    table = README.partition("## The asset groups")[2].partition("\n## ")[0]
    assert {int(number) for number in re.findall(r"`\w+` \((\d+)\)", table)} == {*range(1, 16), 18}


def test_python_example_prints_the_hit_rate(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worlds.built_world(tmp_path_factory).copy(tmp_path / ".dssm", {"storage": {"root": "{home}/home/tables"}})
    monkeypatch.chdir(tmp_path)
    (example,) = _blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    # Every user buys three items of its own group, and a list of 200 holds all items.
    assert capsys.readouterr().out.splitlines()[-1] == f"{worlds.EVALUATION_DAY} 1.0"


def test_every_path_of_the_architecture_page_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`([\w/]+(?:\.py|/))`", page))
    assert len(paths) > 50
    assert [path for path in sorted(paths) if not (ROOT / "dssm_assets" / path).exists() and not (ROOT / path).exists()] == []


def test_errors_without_faults_say_how_to_fix_them() -> None:
    """Faults print "To fix:" themselves; these errors are raised with a whole message."""
    errors = ("StorageError", "CheckFailedError", "SubmittedJobError")
    raised = [
        (path.relative_to(ROOT).as_posix(), node.lineno, ast.unparse(node.exc.args[0]))
        for path in (ROOT / "dssm_assets").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in errors
        if isinstance(node.exc.args[0], (ast.Constant, ast.JoinedStr))
    ]
    assert [place for place in raised if "To fix:" not in place[2] and "_REMEDY" not in place[2]] == []
