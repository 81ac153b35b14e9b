"""Which configuration and home are chosen, for every place that can name them, and the line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets.core.errors import ConfigError
from dssm_assets.storage.config_choice import CONFIG_VARIABLE, HOME_VARIABLES, choose_config


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Returns a function that chooses in the folder `here`, with environment variables."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def choose(config=None, home=None, packaged=None, **environ):
        for name in (CONFIG_VARIABLE, *HOME_VARIABLES):
            monkeypatch.setenv(name, environ.get(name, ""))
        return choose_config(config, home, packaged=packaged)

    return choose


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("name: x\n")
    return path


def test_flag_wins_over_the_environment(place, tmp_path):
    found = place("mine.yaml", Path("home"), DSSM_CONFIG="/other.yaml", DSSM_HOME="/a", DAGSTER_HOME="/b")
    here = tmp_path / "here"
    assert (found.paths, found.home, found.instance_home) == ((here / "mine.yaml",), here / "home", here / "home")
    assert found.describe() == f"configuration {here}/mine.yaml (--config), home {here}/home (--home)"


def test_environment_wins_over_files_which_the_line_names(place, tmp_path):
    here = tmp_path / "here"
    for path in (here / "config.yaml", tmp_path / "shop" / "config.yaml"):
        write(path)
    found = place(DSSM_CONFIG="/a.yaml:/b.yaml", DSSM_HOME=str(tmp_path / "shop"), DAGSTER_HOME="/runs")
    assert (found.paths, found.home) == ((Path("/a.yaml"), Path("/b.yaml")), tmp_path / "shop")
    assert found.instance_home == Path("/runs")
    assert found.describe() == (
        f"configuration /a.yaml, /b.yaml (DSSM_CONFIG), home {tmp_path}/shop (DSSM_HOME); "
        f"{tmp_path}/shop/config.yaml is not used; {here}/config.yaml is not used"
    )


def test_config_of_the_named_home_wins_over_the_current_folder(place, tmp_path):
    write(tmp_path / "here" / "config.yaml")
    own = write(tmp_path / "shop" / "config.yaml")
    found = place(DAGSTER_HOME=str(own.parent))
    assert (found.paths, found.home, found.instance_home) == ((own,), own.parent, own.parent)
    assert found.describe() == (
        f"configuration {own} (in the home), home {own.parent} (DAGSTER_HOME); {tmp_path}/here/config.yaml is not used"
    )


def test_config_of_the_current_folder_wins_over_the_demo(place, tmp_path):
    here = write(tmp_path / "here" / "config.yaml")
    write(tmp_path / "here" / ".dssm" / "config.yaml")
    found = place(packaged=Path("/packaged.yaml"))
    assert (found.paths, found.home, found.is_packaged) == ((here,), here.parent, False)
    assert found.describe() == f"configuration {here} (in this folder), home {here.parent} (folder of the configuration)"


def test_demo_of_the_current_folder_is_its_own_home(place, tmp_path):
    demo = write(tmp_path / "here" / ".dssm" / "config.yaml")
    found = place()
    assert (found.paths, found.home, found.instance_home) == ((demo,), demo.parent, demo.parent)


def test_home_and_configuration_may_be_of_different_folders(place, tmp_path):
    here = write(tmp_path / "here" / "config.yaml")
    found = place(home=tmp_path / "new")
    assert (found.paths, found.home, found.not_used) == ((here,), tmp_path / "new", ())
    found = place("/shop/a.yaml:/news/b.yaml")
    assert (found.home, found.home_named_by) == (Path("/shop"), "folder of the configuration")


def test_packaged_demo_is_for_those_who_ask_and_only_without_any_file(place, tmp_path):
    found = place(packaged=Path("/packaged.yaml"))
    assert (found.paths, found.home, found.is_packaged) == ((Path("/packaged.yaml"),), tmp_path / "here" / ".dssm", True)
    with pytest.raises(ConfigError, match=rf"no config.yaml in {tmp_path}/here or {tmp_path}/here/.dssm. To fix: .*--config"):
        place()
    with pytest.raises(ConfigError, match=rf"no config.yaml in /elsewhere or {tmp_path}/here or"):
        place(DAGSTER_HOME="/elsewhere")
