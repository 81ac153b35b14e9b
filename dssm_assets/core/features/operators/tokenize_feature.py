"""tokenize_feature: the tokens of one text input, as their ids in the vocabulary of a tokenizer.

The whole text of a value is cut, whatever separators it holds. What the text of a value is, integers and floats
included, is defined in `text_values.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features import column_values, fg_files
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.text.normalizer import TextNormalizer
from dssm_assets.core.features.text.tokenizer import TextTokenizer, TokenizerType, load_tokenizer

_TEXTS_AT_ONCE: Final = 10_000
"""Bounds the memory that the libraries' own results take."""


class TokenizeFeature(Operator):
    """The tokens of a row, any number of them, in their order. A category is the id of a token, as text.

    Attributes:
        expression: the input.
        vocab_file: the tokenizer's file.
        tokenizer_type: "bpe" (default): a tokenizer.json; "sentencepiece": a model of that library.
        text_normalizer: what is done to a text before; default nothing.
        default_value: a text whose tokens a row without tokens gets; it bypasses the normalizer. "" (default): none.
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
        """Always a category."""
        return Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        """Always true."""
        return True

    @property
    def vocabulary_size(self) -> int:
        """How many ids the tokenizer has: each is below it."""
        assert self._tokenizer is not None
        return self._tokenizer.size

    @property
    def num_buckets(self) -> int:
        """The vocabulary's size: the bucket of a token is its id."""
        return self.vocabulary_size

    @property
    def expression_texts(self) -> Sequence[str]:
        """The one input."""
        return (self.expression,)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the lists of token ids; each distinct text is cut once."""
        texts = column_values.text_values(inputs[0], self.where(0))
        used, word_of_row = _used(texts)
        ids, offsets = self._ids(used)
        lengths = np.diff(offsets)
        # The default stands behind the texts, and takes the place of missing texts and of those without tokens.
        has_tokens = np.append(lengths[:-1] > 0, False)
        word_of_row = np.where(has_tokens[word_of_row], word_of_row, len(used))
        distinct, codes = np.unique(ids, return_inverse=True)
        taken = codes[ragged.ranges(offsets[word_of_row], lengths[word_of_row])]
        tokens = pa.DictionaryArray.from_arrays(pa.array(taken, pa.int32()), pa.array(distinct).cast(pa.string()))
        return ragged.build(tokens, ragged.offsets_of(lengths[word_of_row]))

    def _ids(self, texts: list[str]) -> tuple[Any, ragged.Offsets]:
        """Returns the token ids of the texts and of the default behind them, and their bounds."""
        assert self._tokenizer is not None
        flat, lengths = [], []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            ids = self._tokenizer.encode(part if self.text_normalizer is None else self.text_normalizer.normalized(part))
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
            flat.append(np.fromiter(chain.from_iterable(ids), np.int64, int(lengths[-1].sum())))
        default = self._tokenizer.encode([self.default_text])[0] if self.default_text else []
        flat.append(np.array(default, dtype=np.int64))
        lengths.append(np.array([len(default)]))
        return np.concatenate(flat), ragged.offsets_of(np.concatenate(lengths))


def _used(texts: pa.DictionaryArray) -> tuple[list[str], Any]:
    """Returns the distinct texts that occur, and which of them each row has; one behind the last if it has none."""
    is_missing = ragged.null_mask(texts.indices)
    codes = texts.indices.fill_null(0).to_numpy(zero_copy_only=False)
    used, places = np.unique(codes[~is_missing], return_inverse=True)
    word_of_row = np.full(len(texts), len(used))
    word_of_row[~is_missing] = places
    return texts.dictionary.take(pa.array(used)).to_pylist(), word_of_row
