"""Values replaced in a configuration's text: the values are there, comments and order of the rest stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import dssm_assets
from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.experiments.experiments import edit_yaml

TEXT = """\
# the shop
name: shop

model:
  output_dim: 64        # narrow
  poolings:             # two of them
    - {kind: root, length: 10}
    # the mean
    - {kind: mean, length: 10}
  # last
  temperature: 0.1
training: {epochs: 3, batch_size: 32}   # one line
"""


def edited(changes, text=TEXT, note="experiment wide"):
    return edit_yaml(text, changes, note)


def test_replaced_value_keeps_its_comment_and_notes_the_old_value():
    replaced = edited({"model.output_dim": 128})
    assert replaced == TEXT.replace(
        "  output_dim: 64        # narrow\n", "  # experiment wide; was 64\n  output_dim: 128       # narrow\n"
    )


def test_without_a_note_only_the_value_changes():
    assert edited({"model.temperature": 0.05}, note="") == TEXT.replace("temperature: 0.1", "temperature: 0.05")


@pytest.mark.parametrize(
    "changes",
    [
        {"model.prior": True},
        {"training.epochs": 5, "training.patience": 2},
        {"negative_items.alpha": 0.5},
        {"model.poolings": [{"kind": "root", "length": 5}], "statistics.embedding_dim": {"item": 64}},
        {"model.frozen_embedding": None, "model.loss": "softmax"},
    ],
)
def test_edited_text_has_exactly_the_wanted_values(changes):
    expected = yaml.safe_load(TEXT)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        expected.setdefault(section, {})[name] = value
    text = edited(changes)
    assert yaml.safe_load(text) == expected
    assert "# the shop\nname: shop\n" in text


def test_section_without_keys_and_text_without_a_last_newline():
    assert yaml.safe_load(edited({"model.prior": True}, "model:\nname: x", note="")) == {"model": {"prior": True}, "name": "x"}


def test_text_whose_keys_share_values_is_refused():
    with pytest.raises(ConfigError, match="aliases"):
        edited({"model.a": 1}, "model: &m {a: 2}\nother: *m\n")


def test_the_demo_s_configuration_keeps_every_comment():
    text = (Path(dssm_assets.__file__).parent / "datasets" / "complete_journey.yaml").read_text()
    changed = edited({"model.output_dim": 64, "training.epochs": 2, "channels.is_enabled": True}, text)
    comments = [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]
    assert [comment for comment in comments if comment not in changed] == []
