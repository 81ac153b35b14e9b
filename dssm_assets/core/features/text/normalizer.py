"""Text normalizers: how a text is made uniform before it is cut into tokens.

Belongs here: the options of `text_normalizer` and what each does to a text. Does not belong here: tokens
(`load_tokenizer.py`).

The options are a set: whatever order they are written in, they work in the order of `NormOption`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from dssm_assets.core.features import fg_files
from dssm_assets.core.features.operators.base import Definition
from dssm_assets.core.features.text.tokenizer import import_library


class NormOption(StrEnum):
    """What may be done to a text, in the order in which it is done."""

    SBC2DBC = "TEXT_SBC2DBC"
    """Full-width characters become half-width: U+FF01 .. U+FF5E and the ideographic space."""
    CHT2CHS = "TEXT_CHT2CHS"
    """Traditional Chinese becomes simplified (OpenCC, t2s)."""
    LOWER2UPPER = "TEXT_LOWER2UPPER"
    """Upper case."""
    UPPER2LOWER = "TEXT_UPPER2LOWER"
    """Lower case."""
    FILTER = "TEXT_FILTER"
    """Special characters go: those of stop_char_file, else punctuation, symbols and control characters of Unicode."""
    REMOVE_SPACE = "TEXT_REMOVE_SPACE"
    """White space goes."""
    SPLITCHRS = "TEXT_SPLITCHRS"
    """A space stands between a Chinese character and its neighbours."""


DEFAULT_OPTIONS: Final = frozenset({NormOption.LOWER2UPPER, NormOption.SBC2DBC, NormOption.CHT2CHS, NormOption.FILTER})

_HALF_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_HAN = "[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
_ANY_HAN: Final = re.compile(_HAN)
_BESIDE_HAN: Final = re.compile(rf"(?<={_HAN})(?=\S)|(?<=\S)(?={_HAN})")


class TextNormalizer(Definition):
    """How a text is made uniform.

    Attributes:
        norm_options: what is done; default: upper case, half-width, simplified Chinese, no special characters.
        stop_char_file: a text file; all its characters but line breaks are the special ones that TEXT_FILTER removes.
    """

    norm_options: list[NormOption] | None = Field(default=None, min_length=1)
    stop_char_file: str | None = Field(default=None, min_length=1)
    _stop_chars: Mapping[int, int | None] | None = PrivateAttr(default=None)

    @property
    def options(self) -> frozenset[NormOption]:
        """What is done, the default included."""
        return DEFAULT_OPTIONS if self.norm_options is None else frozenset(self.norm_options)

    @model_validator(mode="after")
    def _options_agree(self, info: ValidationInfo) -> TextNormalizer:
        if len(self.options) < len(self.norm_options or ()):
            raise ValueError("norm_options names an option twice")
        if {NormOption.LOWER2UPPER, NormOption.UPPER2LOWER} <= self.options:
            raise ValueError("TEXT_LOWER2UPPER and TEXT_UPPER2LOWER exclude each other")
        if NormOption.CHT2CHS in self.options:
            _to_simplified()
        if self.stop_char_file is not None:
            if NormOption.FILTER not in self.options:
                raise ValueError("stop_char_file means nothing without TEXT_FILTER")
            self._stop_chars = _stop_chars(fg_files.read_named_file(info.context, self.stop_char_file))
        return self

    def normalized(self, texts: Sequence[str]) -> list[str]:
        """Returns each text after all options."""
        special = _SPECIAL if self._stop_chars is None else self._stop_chars
        steps: dict[NormOption, Callable[[str], str]] = {
            NormOption.SBC2DBC: lambda text: text.translate(_HALF_WIDTH),
            NormOption.CHT2CHS: lambda text: _to_simplified().convert(text) if _ANY_HAN.search(text) else text,
            NormOption.LOWER2UPPER: str.upper,
            NormOption.UPPER2LOWER: str.lower,
            NormOption.FILTER: lambda text: text.translate(special),
            NormOption.REMOVE_SPACE: lambda text: "".join(text.split()),
            NormOption.SPLITCHRS: lambda text: _BESIDE_HAN.sub(" ", text),
        }
        result = list(texts)
        for option in NormOption:
            if option in self.options:
                result = [steps[option](text) for text in result]
        return result


class _Special(dict[int, int | None]):
    """The translation that drops special characters, filled as characters turn up."""

    def __missing__(self, code: int) -> int | None:
        # Tab and line breaks are control characters that separate words.
        is_special = unicodedata.category(chr(code))[0] in "PSC" and chr(code) not in "\t\n\r"
        return self.setdefault(code, None if is_special else code)


_SPECIAL: Final = _Special()


def _stop_chars(content: bytes) -> dict[int, int | None]:
    try:
        characters = set(content.decode("utf-8-sig")) - set("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"a stop_char_file is UTF-8 text: {error}") from error
    if not characters:
        raise ValueError("a stop_char_file holds at least one character")
    return {ord(character): None for character in characters}


@lru_cache(maxsize=1)
def _to_simplified() -> Any:
    return import_library("opencc", "TEXT_CHT2CHS").OpenCC("t2s")
