"""Values replaced in a configuration's text: the values are there, everything else stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

import dssm_assets
from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.experiments.yaml_edit import edit_yaml

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

statistics:
  embedding_dim:
    item: 12
"""


def edited(changes, text=TEXT, note="experiment wide"):
    return edit_yaml(text, changes, note)


def test_replaced_scalar_keeps_its_comment_and_notes_the_old_value():
    found = edited({"model.output_dim": 128})
    assert found == TEXT.replace(
        "  output_dim: 64        # narrow\n", "  # experiment wide; was 64\n  output_dim: 128        # narrow\n"
    )


def test_without_a_note_only_the_value_changes():
    assert edited({"model.temperature": 0.05}, note="") == TEXT.replace("temperature: 0.1", "temperature: 0.05")


def test_block_value_is_replaced_as_a_whole_and_what_follows_stays():
    found = edited({"model.poolings": [{"kind": "root", "length": 5}]}, note="")
    begin, end = TEXT.index("  poolings"), TEXT.index("  # last")
    assert found == TEXT[:begin] + "  poolings: [{kind: root, length: 5}]\n" + TEXT[end:]


def test_new_key_goes_to_the_end_of_its_section():
    found = edited({"model.prior": True})
    assert found == TEXT.replace("  temperature: 0.1\n", "  temperature: 0.1\n  # experiment wide\n  prior: true\n")


def test_section_on_one_line_stays_on_one_line():
    found = edited({"training.epochs": 5, "training.patience": 2})
    assert found == TEXT.replace("{epochs: 3, batch_size: 32}", "{epochs: 5, batch_size: 32, patience: 2}")


def test_missing_section_is_appended():
    assert edited({"negative_items.alpha": 0.5}) == f"{TEXT}\nnegative_items:\n  # experiment wide\n  alpha: 0.5\n"


def test_nested_block_at_the_end_of_the_file():
    found = edited({"statistics.embedding_dim": {"item": 64, "user": 8}}, note="")
    assert found == TEXT.replace("  embedding_dim:\n    item: 12\n", "  embedding_dim: {item: 64, user: 8}\n")


def test_section_without_keys_and_text_without_a_last_newline():
    assert edited({"model.prior": True}, "model:\nname: x", note="") == "model:\n  prior: true\nname: x"
    assert edited({"model.prior": True}, "model:\n  skip: true", note="") == "model:\n  skip: true\n  prior: true\n"


def test_text_whose_keys_share_values_is_refused():
    with pytest.raises(ConfigError, match="aliases"):
        edited({"model.a": 1}, "model: &m {a: 2}\nother: *m\n")


VALUES = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.sampled_from(["item", "a b", "#"]), st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    ["model.output_dim", "model.poolings", "model.prior", "training.epochs", "statistics.embedding_dim", "channels.own"]
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@example({"training.epochs": ":0"})
def test_edited_text_has_exactly_the_wanted_values_and_all_other_lines(changes):
    found = edited(changes)
    expected = yaml.safe_load(TEXT)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        expected.setdefault(section, {})[name] = value
    assert yaml.safe_load(found) == expected
    assert "# the shop\nname: shop\n" in found
    assert "  # last\n  temperature: 0.1\n" in found


def test_the_demo_s_configuration_keeps_every_comment():
    text = (Path(dssm_assets.__file__).parent / "datasets" / "complete_journey.yaml").read_text()
    found = edited({"model.output_dim": 64, "training.epochs": 2, "channels.is_enabled": True}, text)
    comments = [line.partition("#")[2].strip() for line in text.splitlines() if "#" in line]
    assert [comment for comment in comments if comment not in found] == []
