"""The grammar of formulas: precedence against trees, and a sentence for everything that is no formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.formula.parser import MAX_DEPTH, MAX_LENGTH, Step, check_variable_name, parse_steps
from dssm_assets_tests.core.features import formula_trees
from dssm_assets_tests.core.features.formula_trees import Tree

TREES = formula_trees.trees(formula_trees.INFIX, ("abs", "min"), st.sampled_from([0, 1, 2.5, 1e-7, 1e22]))


def steps(text: str) -> tuple[Step, ...]:
    return parse_steps(text, ("a", "b", "c"))


@given(TREES, st.data())
def test_redundant_parentheses_do_not_change_a_formula(tree: Tree, data: st.DataObject) -> None:
    everywhere = formula_trees.text_of(tree, lambda: True)
    assert steps(formula_trees.text_of(tree, lambda: False)) == steps(everywhere)
    assert steps(formula_trees.text_of(tree, lambda: data.draw(st.booleans()))) == steps(everywhere)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("-2^2", "-(2^2)"),
        ("2^3^2", "2^(3^2)"),
        ("2^-3^2", "2^(-(3^2))"),
        ("2^-3*4", "(2^(-3))*4"),
        ("a--b", "a-(-b)"),
        ("2++4", "2+4"),
        ("-a*b", "(-a)*b"),
        ("!a==b", "(!a)==b"),
        ("a-b-c", "(a-b)-c"),
        ("a/b/c", "(a/b)/c"),
        ("a<b==c", "(a<b)==c"),
        ("a==b<c", "(a==b)<c"),
        ("a|b&c", "a|(b&c)"),
        ("a||b&&c", "a||(b&&c)"),
        ("a&&b|c", "a&&(b|c)"),
        ("a&b==c", "a&(b==c)"),
        ("a<b+c*2", "a<(b+(c*2))"),
        ("a?b:c?1:2", "a?b:(c?1:2)"),
        ("a?b?1:2:c", "a?(b?1:2):c"),
        ("a||b?c:1", "(a||b)?c:1"),
        ("1.+.5e1", " 1.0\t+\n5 "),
    ],
)
def test_precedence_by_hand(text: str, meant: str) -> None:
    assert steps(text) == steps(meant)
    assert len(steps("a-b-c")) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"position 1: expected a number, a variable, a function or \(, got the end"),
        ("a+*b", r"'a\+\*b', position 3: expected a number, .* got '\*'"),
        ("(a+b", r"position 5: expected an operator or \), got the end"),
        ("a+b)", "position 4: expected an operator or the end, got '\\)'"),
        ("a b", "position 3: expected an operator or the end, got 'b'"),
        ("2a", "position 2: expected an operator or the end, got 'a'"),
        ("a=b", "position 2: .* got '='; equality is written =="),
        ("a?b", "position 4: expected an operator, or the : of c .* got the end"),
        ("a%b", "position 2: expected a number, a name or an operator, got '%'"),
        ("a+é", "position 3: .* got 'é'"),
        ("1+1e999", "position 3: expected a number that float64 can hold"),
        ("a+size", r"position 3: expected a variable or a constant \(a, b, c, _pi, _e\), got 'size'"),
        ("__import__", "got '__import__'"),
        ("a.real", r"position 2: .* got '\.'"),
        ("foo(a)", r"position 1: expected a function \(abs, .* variance\), got 'foo'"),
        ("a(1)", "expected a function .* got 'a'"),
        ("1+rnd()", "position 3: expected a function with one result per row, got 'rnd'"),
        ("sin(a,b)", "position 1: expected 1 argument of sin, got 2"),
        ("roundp(a)", "expected 2 arguments of roundp, got 1"),
        ("haversine(a,b)", "expected 4 arguments of haversine, got 2"),
        ("dot(a)", "expected 2 arguments of dot, got 1"),
        ("min()", r"position 5: expected a number, .* got '\)'"),
        ("max(a,)", r"position 7: expected a number"),
        ("sin a", "position 1: expected a variable or a constant .* got 'sin'"),
        ("dot(a,1)", r"position 7: expected the name of a vector \(a, b, c\) as argument of dot, got '1'"),
        ("len(a+b)", r"position 6: expected a comma or \): the arguments of len are variables, got '\+'"),
        ("len(d)", "expected the name of a vector .* got 'd'"),
        ("a+len(a)", r"position 1: expected a number, got 'a', which is a vector in len\(a\)"),
        ("dot(a,b)*b", r"position 10: expected a number, got 'b', which is a vector in dot\(a, b\)"),
    ],
)
def test_malformed_formulas_are_refused_with_their_position(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        steps(text)


@pytest.mark.parametrize(
    ("left", "right"), [("(", ")"), ("sin(", ")"), ("max(a,", ")"), ("-", ""), ("2^", ""), ("a?1:", ""), ("1+a*(", ")")]
)
def test_nesting_is_limited(left: str, right: str) -> None:
    levels = MAX_DEPTH // 3 - 1
    assert steps(left * levels + "a" + right * levels)
    with pytest.raises(ValueError, match=f"expected at most {MAX_DEPTH} nested levels"):
        steps(left * (MAX_DEPTH + 1) + "a" + right * (MAX_DEPTH + 1))


def test_length_is_limited_but_a_long_sum_is_not_too_deep() -> None:
    assert len(steps("a" + "+b" * 4000)) == 8001
    with pytest.raises(ValueError, match=f"at most {MAX_LENGTH} characters, got {MAX_LENGTH + 1}"):
        steps("a" * (MAX_LENGTH + 1))


@given(st.lists(st.sampled_from([*"abc+-*/^?:(),!&|<>=. 12é", "min", "dot", "len", "==", "e5", "_pi", "rnd"]), max_size=30))
def test_any_text_parses_or_raises_value_error(pieces: list[str]) -> None:
    try:
        assert steps("".join(pieces))
    except ValueError as error:
        assert "expected" in str(error)


def test_names_of_variables() -> None:
    check_variable_name("u_age2")
    for name in ("2a", "a b", "", "a-b", "é", "a\n"):
        with pytest.raises(ValueError, match="letters"):
            check_variable_name(name)
    with pytest.raises(ValueError, match="constant _pi"):
        check_variable_name("_pi")
