"""tokenize_feature: the token ids of one text input. The text can be normalized first.

Tokenizers add no padding and no begin or end marks. A truncation defined in a tokenizer.json applies.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from itertools import chain
from typing import Any, ClassVar, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Offsets
from dssm_assets.core.features import column_values, fg_files
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import Definition, Operator

INSTALL: Final = "pip install 'dssm-assets[text]'"


def import_library(name: str, needed_by: str) -> Any:
    """Imports a library of the extra `text`.

    Raises:
        ValueError: the library is not installed, so the definition is refused.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{needed_by} needs the library {name}, which is not installed. To fix: {INSTALL}") from error


class NormOption(StrEnum):
    """The steps of normalization, in the order of their application."""

    SBC2DBC = "TEXT_SBC2DBC"
    """Full-width characters become half-width: U+FF01 .. U+FF5E and the ideographic space."""
    CHT2CHS = "TEXT_CHT2CHS"
    """Traditional Chinese becomes simplified (OpenCC, t2s)."""
    LOWER2UPPER = "TEXT_LOWER2UPPER"
    """Upper case."""
    UPPER2LOWER = "TEXT_UPPER2LOWER"
    """Lower case."""
    FILTER = "TEXT_FILTER"
    """Removes the characters of stop_char_file, or without this file Unicode punctuation, symbols and control characters."""
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
    """Normalizes a text.

    Attributes:
        norm_options: the options to apply (default: upper case, half-width, simplified Chinese, no special characters).
        stop_char_file: text file with the characters that TEXT_FILTER removes, except line breaks (default: see `NormOption`).
    """

    norm_options: list[NormOption] | None = Field(default=None, min_length=1)
    stop_char_file: str | None = Field(default=None, min_length=1)
    _stop_chars: Mapping[int, int | None] | None = PrivateAttr(default=None)

    @property
    def options(self) -> frozenset[NormOption]:
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
    """Translation table that removes special characters. It classifies each character once."""

    def __missing__(self, code: int) -> int | None:
        # Tabs and line breaks are control characters, but separate words, so they stay.
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


class TokenizerType(StrEnum):
    """Kind of file that describes a tokenizer."""

    BPE = "bpe"
    """A tokenizer.json of the library tokenizers, with any model."""
    SENTENCEPIECE = "sentencepiece"
    """A model of the library sentencepiece."""


Encode = Callable[[Sequence[str]], list[list[int]]]
"""Returns the token ids of each text."""


def _load_bpe(content: bytes) -> tuple[int, Encode]:
    tokenizers = import_library("tokenizers", "tokenizer_type bpe")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception for every fault
        raise ValueError(f"tokenizer_type bpe needs a tokenizer.json, but this file is none: {error}") from error
    tokenizer.no_padding()
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    return max(ids, default=-1) + 1, partial(_encode_bpe, tokenizer)


def _encode_bpe(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _load_sentencepiece(content: bytes) -> tuple[int, Encode]:
    sentencepiece = import_library("sentencepiece", "tokenizer_type sentencepiece")
    try:
        # For an empty file the library raises no error, and its processor would find no tokens.
        processor = sentencepiece.SentencePieceProcessor(model_proto=content or b"none")
    except RuntimeError as error:
        message = f"tokenizer_type sentencepiece needs a model of this library, but this file is none: {error}"
        raise ValueError(message) from error
    return processor.get_piece_size(), partial(processor.encode, out_type=int, add_bos=False, add_eos=False)


class TokenizeFeature(Operator):
    """The tokens of a row in their order. Each category is the id of a token, as text.

    The whole text of a value is tokenized, separators included.

    Attributes:
        expression: the input.
        vocab_file: the file of the tokenizer.
        tokenizer_type: "bpe" (default) for a tokenizer.json, "sentencepiece" for a model of that library.
        text_normalizer: normalizes a text before it is tokenized (default: none).
        default_value: a row without tokens gets the tokens of this text, not normalized (default "": no tokens).
        output_type: only "word_id".
    """

    feature_type: Literal["tokenize_feature"] = "tokenize_feature"
    kind: ClassVar[Kind] = Kind.CATEGORICAL
    is_multi: ClassVar[bool] = True
    expression: ExpressionText
    vocab_file: str = Field(min_length=1)
    tokenizer_type: TokenizerType = TokenizerType.BPE
    text_normalizer: TextNormalizer | None = None
    output_type: Literal["word_id"] = "word_id"
    _tokenizer: tuple[int, Encode] = PrivateAttr()

    @model_validator(mode="after")
    def _read_tokenizer(self, info: ValidationInfo) -> TokenizeFeature:
        content = fg_files.read_named_file(info.context, self.vocab_file)
        load = _load_bpe if self.tokenizer_type is TokenizerType.BPE else _load_sentencepiece
        self._tokenizer = load(content)
        return self

    @property
    def num_buckets(self) -> int:
        """The size of the tokenizer's vocabulary, because the bucket of a token is its id."""
        return self._tokenizer[0]

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns lists of token ids. Each distinct text is tokenized once."""
        texts = column_values.text_values(inputs[0], self.where(0))
        is_present = ~ragged.null_mask(texts.indices)
        codes, positions = np.unique(column_values.dictionary_codes(texts.filter(pa.array(is_present))), return_inverse=True)
        used = texts.dictionary.take(pa.array(codes)).to_pylist()
        text_of_row = np.full(len(texts), len(used))
        text_of_row[is_present] = positions
        ids, offsets = self._tokenize(used)
        lengths = np.diff(offsets)
        # The default is the last text; it replaces missing texts and texts without tokens.
        has_tokens = np.append(lengths[:-1] > 0, False)
        text_of_row = np.where(has_tokens[text_of_row], text_of_row, len(used))
        distinct, codes = np.unique(ids, return_inverse=True)
        token_codes = codes[ragged.ranges(offsets[text_of_row], lengths[text_of_row])]
        tokens = pa.DictionaryArray.from_arrays(pa.array(token_codes, pa.int32()), pa.array(distinct).cast(pa.string()))
        return ragged.build_lists(tokens, ragged.offsets_of(lengths[text_of_row]))

    def _tokenize(self, texts: list[str]) -> tuple[IntArray, Offsets]:
        """Returns the token ids of the texts and then of the default, and their offsets."""
        normalized = texts if self.text_normalizer is None else self.text_normalizer.normalize(texts)
        ids = self._tokenizer[1]([*normalized, self.default_text])
        if not self.default_text:
            ids[-1] = []
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum())), ragged.offsets_of(lengths)
