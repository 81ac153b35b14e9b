"""Text normalizers: each option by hand, their order, and definitions that are refused."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.features.operators import tokenize_feature as normalizer_module
from dssm_assets.core.features.operators.tokenize_feature import NormOption, TextNormalizer

FILES = {"stop.txt": "ae\r\n你\n".encode("utf-8-sig"), "empty.txt": b"\n", "latin.txt": b"\xff"}


def normalizer(**keys: object) -> TextNormalizer:
    return TextNormalizer.model_validate(keys, context={"read_file": FILES.__getitem__})


def normalized(text: str, *options: str, **keys: object) -> str:
    return normalizer(norm_options=[f"TEXT_{option}" for option in options], **keys).normalize([text])[0]


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("LOWER2UPPER", "aBcé9ß", "ABCÉ9SS"),
        ("UPPER2LOWER", "aBCÉ9", "abcé9"),
        ("SBC2DBC", "ＡＢｃ　１２！～", "ABc 12!~"),
        ("SBC2DBC", "ab 你、", "ab 你、"),
        ("CHT2CHS", "漢字電腦 abc", "汉字电脑 abc"),
        ("CHT2CHS", "皇后在後面", "皇后在后面"),
        ("FILTER", "a-b, c!（你）、$5 €\x1d\0\u200b", "ab c你5 "),
        ("FILTER", "a\tb\nc", "a\tb\nc"),
        ("REMOVE_SPACE", " a b\t\u3000c\n", "abc"),
        ("SPLITCHRS", "我爱NLP课 程", "我 爱 NLP 课 程"),
        ("SPLITCHRS", "no chinese here", "no chinese here"),
        ("SPLITCHRS", "𠀀〇々x", "𠀀 〇 々 x"),
    ],
)
def test_single_option(option: str, text: str, expected: str) -> None:
    assert normalized(text, option) == expected


def test_default_is_upper_half_width_simplified_and_filtered() -> None:
    assert normalizer().normalize(["ａbc，漢 字！"]) == ["ABC汉 字"]


def test_options_apply_in_their_own_order_not_that_of_the_list() -> None:
    # Half-width before the filter, spaces of the text away before those that set characters apart.
    assert normalized("我　爱 a", "SPLITCHRS", "REMOVE_SPACE", "SBC2DBC") == "我 爱 a"
    assert normalized("ａ", "FILTER", "SBC2DBC", stop_char_file="stop.txt") == ""


def test_stop_char_file_replaces_the_special_characters() -> None:
    assert normalized("abc, 你好\n", "FILTER", stop_char_file="stop.txt") == "bc, 好\n"


@given(st.lists(st.text(max_size=12), max_size=5), st.sets(st.sampled_from(NormOption), min_size=1))
def test_batch_equals_single_texts_and_filters_are_idempotent(texts: list[str], options: set[NormOption]) -> None:
    options -= {NormOption.UPPER2LOWER}
    operator = normalizer(norm_options=sorted(options) or ["TEXT_FILTER"])
    found = operator.normalize(texts)
    assert found == [operator.normalize([text])[0] for text in texts]
    if not options & {NormOption.CHT2CHS, NormOption.LOWER2UPPER}:
        again = operator.normalize(found)
        assert [text.replace(" ", "") for text in again] == [text.replace(" ", "") for text in found]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm_options": []}, "at least 1"),
        ({"norm_options": ["UPPER"]}, "TEXT_LOWER2UPPER"),
        ({"norm_options": ["TEXT_FILTER", "TEXT_FILTER"]}, "repeats an option"),
        ({"norm_options": ["TEXT_LOWER2UPPER", "TEXT_UPPER2LOWER"]}, "exclude each other"),
        ({"norm_options": ["TEXT_SBC2DBC"], "stop_char_file": "stop.txt"}, "no effect without TEXT_FILTER"),
        ({"stop_char_file": "empty.txt"}, "at least one character"),
        ({"stop_char_file": "latin.txt"}, "UTF-8"),
        ({"language": "zh"}, "Extra inputs"),
    ],
)
def test_bad_definitions_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        normalizer(**keys)


def test_definition_that_needs_opencc_is_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opencc", None)
    normalizer_module._to_simplified.cache_clear()
    with pytest.raises(
        ValidationError,
        match=r"TEXT_CHT2CHS needs the library opencc, which is not installed. To fix: pip install 'dssm-assets\[text\]'",
    ):
        normalizer()
    assert normalized("a", "LOWER2UPPER") == "A"
