"""Normalization of texts before they are tokenized: the options of the key `text_normalizer`.

The options are a set: they apply in the order of `NormOption`, whatever order a definition gives.
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
    """The options, in the order in which they apply."""

    SBC2DBC = "TEXT_SBC2DBC"
    """Full-width characters become half-width: U+FF01 .. U+FF5E and the ideographic space."""
    CHT2CHS = "TEXT_CHT2CHS"
    """Traditional Chinese becomes simplified (OpenCC, t2s)."""
    LOWER2UPPER = "TEXT_LOWER2UPPER"
    """Upper case."""
    UPPER2LOWER = "TEXT_UPPER2LOWER"
    """Lower case."""
    FILTER = "TEXT_FILTER"
    """Removes special characters: those of stop_char_file, else punctuation, symbols and control characters of Unicode."""
    REMOVE_SPACE = "TEXT_REMOVE_SPACE"
    """Removes white space."""
    SPLITCHRS = "TEXT_SPLITCHRS"
    """Puts a space between a Chinese character and its neighbours."""


DEFAULT_OPTIONS: Final = frozenset({NormOption.LOWER2UPPER, NormOption.SBC2DBC, NormOption.CHT2CHS, NormOption.FILTER})

_HALF_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_HAN = "[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
_ANY_HAN: Final = re.compile(_HAN)
_NEXT_TO_HAN: Final = re.compile(rf"(?<={_HAN})(?=\S)|(?<=\S)(?={_HAN})")


class TextNormalizer(Definition):
    """How a text is normalized.

    Attributes:
        norm_options: the options to apply (default: upper case, half-width, simplified Chinese, no special characters).
        stop_char_file: text file whose characters, except line breaks, TEXT_FILTER removes (default: see `NormOption`).
    """

    norm_options: list[NormOption] | None = Field(default=None, min_length=1)
    stop_char_file: str | None = Field(default=None, min_length=1)
    _stop_chars: Mapping[int, int | None] | None = PrivateAttr(default=None)

    @property
    def options(self) -> frozenset[NormOption]:
        """The options to apply."""
        return DEFAULT_OPTIONS if self.norm_options is None else frozenset(self.norm_options)

    @model_validator(mode="after")
    def _options_agree(self, info: ValidationInfo) -> TextNormalizer:
        if len(self.options) < len(self.norm_options or ()):
            raise ValueError("norm_options repeats an option")
        if {NormOption.LOWER2UPPER, NormOption.UPPER2LOWER} <= self.options:
            raise ValueError("TEXT_LOWER2UPPER and TEXT_UPPER2LOWER exclude each other")
        if NormOption.CHT2CHS in self.options:
            _to_simplified()
        if self.stop_char_file is not None:
            if NormOption.FILTER not in self.options:
                raise ValueError("stop_char_file has no effect without TEXT_FILTER")
            self._stop_chars = _stop_chars(fg_files.read_named_file(info.context, self.stop_char_file))
        return self

    def normalize(self, texts: Sequence[str]) -> list[str]:
        """Returns each text after all options are applied."""
        special = _SPECIAL if self._stop_chars is None else self._stop_chars
        steps: dict[NormOption, Callable[[str], str]] = {
            NormOption.SBC2DBC: lambda text: text.translate(_HALF_WIDTH),
            NormOption.CHT2CHS: lambda text: _to_simplified().convert(text) if _ANY_HAN.search(text) else text,
            NormOption.LOWER2UPPER: str.upper,
            NormOption.UPPER2LOWER: str.lower,
            NormOption.FILTER: lambda text: text.translate(special),
            NormOption.REMOVE_SPACE: lambda text: "".join(text.split()),
            NormOption.SPLITCHRS: lambda text: _NEXT_TO_HAN.sub(" ", text),
        }
        result = list(texts)
        for option in NormOption:
            if option in self.options:
                result = [steps[option](text) for text in result]
        return result


class _Special(dict[int, int | None]):
    """Translation table that removes special characters; it looks up each character once."""

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
        raise ValueError("a stop_char_file needs at least one character")
    return {ord(character): None for character in characters}


@lru_cache(maxsize=1)
def _to_simplified() -> Any:
    return import_library("opencc", "TEXT_CHT2CHS").OpenCC("t2s")
