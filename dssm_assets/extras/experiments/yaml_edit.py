"""Values of a configuration file replaced in its text, so that its comments and the order of its keys stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from dssm_assets.core.errors import ConfigError, Fault


def edit_yaml(text: str, changes: Mapping[str, Any], note: str) -> str:
    """Returns the text of a YAML file with some values replaced or added.

    Args:
        changes: key `section.name` -> value.
        note: comment above every changed key, with the value before; empty: no comment.

    Raises:
        ConfigError: the text cannot be edited so that it has these values, such as one with aliases.
    """
    writer = YAML()
    writer.preserve_quotes = True
    writer.width = 1 << 20
    writer.indent(mapping=2, sequence=4, offset=2)
    document = writer.load(text) or CommentedMap()
    wanted: dict[str, Any] = yaml.safe_load(text) or {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if not isinstance(document.get(section), CommentedMap):
            document[section] = CommentedMap()
        keys = document[section]
        before = f"; was {keys[name]}" if name in keys and not isinstance(keys[name], (dict, list)) else ""
        keys[name] = value
        if note and not keys.fa.flow_style():
            keys.yaml_set_comment_before_after_key(name, before=f"{note}{before}", indent=2)
        wanted[section] = {**(wanted.get(section) or {}), name: value}
    target = io.StringIO()
    writer.dump(document, target)
    if yaml.safe_load(target.getvalue()) != wanted:
        remedy = "write the settings into the file by hand"
        raise ConfigError(Fault("configuration file", "plain YAML without aliases", "text that other keys share", remedy))
    return target.getvalue()
