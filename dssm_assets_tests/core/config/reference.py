"""Makes docs/configuration.md, the page of all configuration keys, from the pydantic models.

After a change of a key: `python -m dssm_assets_tests.core.config.reference`.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from dssm_assets.core.config.evaluation import Takes, Variant
from dssm_assets.core.config.features import AS_IN_STATISTICS
from dssm_assets.core.config.pipeline import BehaviorTable, PipelineConfig
from dssm_assets.core.config.section import Section

PAGE: Final = Path(__file__).parents[3] / "docs" / "configuration.md"
_HEAD: Final = """# Configuration

Every key of the YAML file with its type, default and meaning. `dssm-assets configuration` prints this page.

The file is named by `--config` or `DSSM_CONFIG` ([platform.md](platform.md#which-configuration)). Unknown keys are refused, all faults at once;
`dssm-assets validate` compares a configuration with its data. A key without a default is required.
"""

_TOLD_IN_ROW: Final = (Takes, Variant)
"""Sections whose keys are told in the row of the section itself."""
_BOUNDS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
"""Attribute of a bound in the metadata of a key -> its sign."""


def configuration_page() -> str:
    """Returns the whole page: one table per section, in the order of the configuration, then the choices of its enums."""
    sections: dict[type[Section], str] = {}
    for section, path in _sections("", PipelineConfig):
        sections.setdefault(section, path)
    leaves = [leaf for section in sections for key in section.model_fields.values() for leaf in _leaves(key.annotation)]
    choices = {leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, StrEnum)}
    return "\n".join(
        [
            _HEAD,
            *(_section_text(path, section) for section, path in sections.items()),
            "## Choices\n\nWhat the values of keys with named choices mean.\n",
            *map(_choices_text, sorted(choices, key=lambda each: each.__name__)),
        ]
    )


def _sections(path: str, section: type[Section]) -> Iterator[tuple[type[Section], str]]:
    """Yields each section with its path, the root first."""
    if section in _TOLD_IN_ROW:
        return
    yield section, path
    for name, key in section.model_fields.items():
        for inner, suffix in _inner_sections(key.annotation):
            yield from _sections(f"{path}.{name}{suffix}".removeprefix("."), inner)


def _inner_sections(annotation: Any) -> list[tuple[type[Section], str]]:
    """Returns the sections that a key holds, each with the suffix that its path takes: `[]` in a list, `.<name>` in a mapping."""
    suffix = {list: "[]", dict: ".<name>"}.get(get_origin(annotation), "")
    return [(leaf, suffix) for leaf in _leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, Section)]


def _leaves(annotation: Any) -> Iterator[Any]:
    if not get_args(annotation):
        yield annotation
    for each in get_args(annotation):
        yield from _leaves(each)


def _section_text(path: str, section: type[Section]) -> str:
    keys = {name: key for name, key in section.model_fields.items() if not _is_told_below(key, path)}
    if section is BehaviorTable:
        told, repeated = "tables.user", [name for name in keys if name not in BehaviorTable.__annotations__]
    else:
        told, repeated = "statistics", [name for name, key in keys.items() if key.description == AS_IN_STATISTICS]
    rows = [_row(name, key) for name, key in keys.items() if name not in repeated]
    title = f"## `{path}`" if path else "## Top level"
    table = "|key|type|default|meaning|\n|---|---|---|---|\n" + "\n".join(rows)
    also = f"\nAlso, as in `{told}`: {', '.join(f'`{name}`' for name in repeated)}.\n" if repeated else ""
    return f"{title}\n\n{_first_paragraph(section)}\n\n{table}\n{also}"


def _is_told_below(key: FieldInfo, path: str) -> bool:
    """Returns whether the section of a key says all: one of the root, or one with defaults."""
    return bool(_inner_sections(key.annotation)) and (not path or isinstance(key.default, Section))


def _row(name: str, key: FieldInfo) -> str:
    type_text = ", ".join([_annotation_text(key.annotation), *_bound_texts(key)])
    cells = (f"`{name}`", type_text, _default_text(key), key.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _bound_texts(key: FieldInfo) -> list[str]:
    return [f"{sign}{getattr(limit, name)}" for limit in key.metadata for name, sign in _BOUNDS.items() if hasattr(limit, name)]


def _annotation_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for key in arguments[1:] if isinstance(key, FieldInfo) for limit in _bound_texts(key)]
        return " ".join([_annotation_text(arguments[0]), ", ".join(limits)]).rstrip()
    if origin is list:
        return f"list of {_annotation_text(arguments[0])}"
    if origin is dict:
        return f"mapping of {_annotation_text(arguments[0])} to {_annotation_text(arguments[1])}"
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if arguments:  # a union
        return " or ".join(_annotation_text(each) for each in arguments if each is not NoneType)
    return "any value" if annotation is Any else _class_text(annotation)


def _class_text(annotation: type) -> str:
    name = annotation.__name__
    if issubclass(annotation, StrEnum):
        return f"[{name}](#{name.lower()})"
    return {"str": "text", "int": "integer", "float": "number", "bool": "boolean"}.get(
        name, "section" if issubclass(annotation, Section) else name
    )


def _default_text(key: FieldInfo) -> str:
    if key.is_required():
        return "required"
    default = key.get_default(call_default_factory=True, validated_data={})
    if default is None:
        return "none"
    # What is no JSON is a section in a list.
    as_json = json.dumps(default, default=lambda section: section.model_dump(mode="json", exclude_none=True))
    return f"`{default}`" if isinstance(default, StrEnum) else f"`{as_json}`"


def _choices_text(choices: type[StrEnum]) -> str:
    """Returns the choices of an enum; the string literal that follows a member in its class body says what it means."""
    body = ast.parse(textwrap.dedent(inspect.getsource(choices))).body[0]
    assert isinstance(body, ast.ClassDef)
    meanings: dict[str, str] = {}
    for statement, following in itertools.pairwise(body.body):
        match statement, following:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                meanings[name] = ": " + " ".join(text.split())
    lines = [f"- `{member.value}`{meanings.get(member.name, '')}" for member in choices]
    return f"### {choices.__name__}\n\n{_first_paragraph(choices)}\n\n" + "\n".join(lines) + "\n"


def _first_paragraph(described: type) -> str:
    return " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(configuration_page(), encoding="utf-8")
