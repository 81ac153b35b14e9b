"""Tokenizers: from texts to the ids of their tokens.

Belongs here: reading the files of the two kinds, and their one interface. Does not belong here: what becomes of the
text before (`text_normalizer.py`) and of the ids after (`operators/tokenize_feature.py`).

Neither kind adds tokens that stand for no text: no padding, no marks of begin and end. A truncation that a
tokenizer.json defines holds.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any


def import_library(name: str, needed_by: str) -> Any:
    """Returns the module of that name.

    Raises:
        ValueError: if it is not installed, so that a definition which needs it is refused.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{needed_by} needs the library {name}, which is not installed: pip install {name}") from error


class TokenizerType(StrEnum):
    """What kind of file describes a tokenizer."""

    BPE = "bpe"
    """A tokenizer.json of the library tokenizers, whatever model it holds."""
    SENTENCEPIECE = "sentencepiece"
    """A model of the library sentencepiece."""


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer. Two are equal if their files are.

    Attributes:
        digest: SHA-256 of the file.
        size: every id is below it.
        encode: returns the ids of the tokens of each text.
    """

    digest: str
    size: int
    encode: Callable[[Sequence[str]], list[list[int]]] = field(compare=False, repr=False)


def load_tokenizer(kind: TokenizerType, content: bytes) -> TextTokenizer:
    """Returns the tokenizer that a file describes.

    Raises:
        ValueError: if the content describes none, or the library that reads it is not installed.
    """
    of_content = _bpe if kind is TokenizerType.BPE else _sentencepiece
    return TextTokenizer(hashlib.sha256(content).hexdigest(), *of_content(content))


def _bpe(content: bytes) -> tuple[int, Callable[[Sequence[str]], list[list[int]]]]:
    tokenizers = import_library("tokenizers", "tokenizer_type bpe")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises Exception itself, whatever is wrong
        raise ValueError(f"tokenizer_type bpe needs a tokenizer.json, and this file is none: {error}") from error
    tokenizer.no_padding()
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    return max(ids, default=-1) + 1, partial(_bpe_ids, tokenizer)


def _bpe_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _sentencepiece(content: bytes) -> tuple[int, Callable[[Sequence[str]], list[list[int]]]]:
    sentencepiece = import_library("sentencepiece", "tokenizer_type sentencepiece")
    try:
        # An empty file makes a processor that logs errors and finds nothing.
        processor = sentencepiece.SentencePieceProcessor(model_proto=content or b"none")
    except RuntimeError as error:
        words = f"tokenizer_type sentencepiece needs a model of that library, and this file is none: {error}"
        raise ValueError(words) from error
    return processor.get_piece_size(), partial(_sentencepiece_ids, processor)


def _sentencepiece_ids(processor: Any, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = processor.encode(list(texts), out_type=int, add_bos=False, add_eos=False)
    return found
