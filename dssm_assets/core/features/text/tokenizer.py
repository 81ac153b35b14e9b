"""Tokenizers: one interface to the files of two libraries, from texts to token ids.

Neither kind adds tokens that are not in the text: no padding, no begin or end marks. A truncation that a tokenizer.json
defines applies.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

INSTALL: Final = "pip install 'dssm-assets[text]'"


def import_library(name: str, needed_by: str) -> Any:
    """Returns the module of a library of the extra `text`.

    Raises:
        ValueError: it is not installed, so a definition that needs it is refused.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{needed_by} needs the library {name}, which is not installed. To fix: {INSTALL}") from error


class TokenizerType(StrEnum):
    """Kind of file that describes a tokenizer."""

    BPE = "bpe"
    """A tokenizer.json of the library tokenizers, with any model."""
    SENTENCEPIECE = "sentencepiece"
    """A model of the library sentencepiece."""


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer. Two tokenizers are equal if their files are.

    Attributes:
        digest: SHA-256 of the file.
        size: number of ids; every id is below it.
    """

    digest: str
    size: int
    encode: Callable[[Sequence[str]], list[list[int]]] = field(compare=False, repr=False)


def load_tokenizer(kind: TokenizerType, content: bytes) -> TextTokenizer:
    """Returns the tokenizer that the content of a file describes.

    Raises:
        ValueError: the content does not describe a tokenizer, or the library that reads it is not installed.
    """
    load = _load_bpe if kind is TokenizerType.BPE else _load_sentencepiece
    return TextTokenizer(hashlib.sha256(content).hexdigest(), *load(content))


def _load_bpe(content: bytes) -> tuple[int, Callable[[Sequence[str]], list[list[int]]]]:
    tokenizers = import_library("tokenizers", "tokenizer_type bpe")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception for every fault
        raise ValueError(f"tokenizer_type bpe needs a tokenizer.json, which this file is not: {error}") from error
    tokenizer.no_padding()
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    return max(ids, default=-1) + 1, partial(_encode_bpe, tokenizer)


def _encode_bpe(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _load_sentencepiece(content: bytes) -> tuple[int, Callable[[Sequence[str]], list[list[int]]]]:
    sentencepiece = import_library("sentencepiece", "tokenizer_type sentencepiece")
    try:
        # From an empty file the library makes a processor that finds nothing, instead of an error.
        processor = sentencepiece.SentencePieceProcessor(model_proto=content or b"none")
    except RuntimeError as error:
        message = f"tokenizer_type sentencepiece needs a model of that library, which this file is not: {error}"
        raise ValueError(message) from error
    return processor.get_piece_size(), partial(_encode_sentencepiece, processor)


def _encode_sentencepiece(processor: Any, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = processor.encode(list(texts), out_type=int, add_bos=False, add_eos=False)
    return found
