"""tokenize_feature: the token ids of one text input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Offsets
from dssm_assets.core.features import column_values, fg_files
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.text.normalizer import TextNormalizer
from dssm_assets.core.features.text.tokenizer import TextTokenizer, TokenizerType, load_tokenizer

_TEXTS_AT_ONCE: Final = 10_000
"""Texts per call of a tokenizer, which bounds the memory of its results."""


class TokenizeFeature(Operator):
    """The tokens of a row in their order. Each category is the id of a token, as text.

    The whole text of a value is tokenized, separators included.

    Attributes:
        expression: the input.
        vocab_file: the file of the tokenizer.
        tokenizer_type: "bpe" (default) for a tokenizer.json, "sentencepiece" for a model of that library.
        text_normalizer: normalizes a text before it is tokenized (default: none).
        default_value: text whose tokens a row without tokens gets; bypasses the normalizer (default "": no tokens).
        output_type: only "word_id".
    """

    feature_type: Literal["tokenize_feature"] = "tokenize_feature"
    expression: ExpressionText
    vocab_file: str = Field(min_length=1)
    tokenizer_type: TokenizerType = TokenizerType.BPE
    text_normalizer: TextNormalizer | None = None
    output_type: Literal["word_id"] = "word_id"
    _tokenizer: TextTokenizer | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _read_tokenizer(self, info: ValidationInfo) -> TokenizeFeature:
        self._tokenizer = load_tokenizer(self.tokenizer_type, fg_files.read_named_file(info.context, self.vocab_file))
        return self

    @property
    def kind(self) -> Kind:
        return Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        return True

    @property
    def vocabulary_size(self) -> int:
        """Number of ids of the tokenizer: each is below it."""
        assert self._tokenizer is not None
        return self._tokenizer.size

    @property
    def num_buckets(self) -> int:
        """Size of the vocabulary, because the bucket of a token is its id."""
        return self.vocabulary_size

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the lists of token ids; each distinct text is tokenized once."""
        texts = column_values.text_values(inputs[0], self.where(0))
        used, text_of_row = _used_texts(texts)
        ids, offsets = self._tokenize(used)
        lengths = np.diff(offsets)
        # The default follows the texts; it replaces missing texts and texts without tokens.
        has_tokens = np.append(lengths[:-1] > 0, False)
        text_of_row = np.where(has_tokens[text_of_row], text_of_row, len(used))
        distinct, codes = np.unique(ids, return_inverse=True)
        token_codes = codes[ragged.ranges(offsets[text_of_row], lengths[text_of_row])]
        tokens = pa.DictionaryArray.from_arrays(pa.array(token_codes, pa.int32()), pa.array(distinct).cast(pa.string()))
        return ragged.build_lists(tokens, ragged.offsets_of(lengths[text_of_row]))

    def _tokenize(self, texts: list[str]) -> tuple[IntArray, Offsets]:
        """Returns the token ids of the texts, followed by those of the default, and their offsets."""
        assert self._tokenizer is not None
        flat, lengths = [], []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            ids = self._tokenizer.encode(part if self.text_normalizer is None else self.text_normalizer.normalize(part))
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
            flat.append(np.fromiter(chain.from_iterable(ids), np.int64, int(lengths[-1].sum())))
        default = self._tokenizer.encode([self.default_text])[0] if self.default_text else []
        flat.append(np.array(default, dtype=np.int64))
        lengths.append(np.array([len(default)]))
        return np.concatenate(flat), ragged.offsets_of(np.concatenate(lengths))


def _used_texts(texts: pa.DictionaryArray) -> tuple[list[str], IntArray]:
    """Returns the distinct texts that occur, and the position among them of the text of each row; their count if missing."""
    is_missing = ragged.null_mask(texts.indices)
    codes = texts.indices.fill_null(0).to_numpy(zero_copy_only=False)
    used, positions = np.unique(codes[~is_missing], return_inverse=True)
    text_of_row = np.full(len(texts), len(used))
    text_of_row[~is_missing] = positions
    return texts.dictionary.take(pa.array(used)).to_pylist(), text_of_row
