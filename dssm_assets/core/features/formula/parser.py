"""The grammar of formulas: from text to the steps that compute it.

Belongs here: precedence, what a formula may say, what is refused. Does not belong here: evaluation (`formula.py`) and
what functions compute (`formula_functions.py`, `formula_vectors.py`).

A formula is made of numbers (1, .5, 1e-3), variables, the constants _pi and _e, parentheses, calls f(x, y) and, from
loose to tight, these operators:

    c ? a : b             right associative
    ||
    &&
    |                     bitwise
    &                     bitwise
    < <= > >= == !=       all of one rank: 1 < 2 == 1 is (1 < 2) == 1
    + -
    * /
    - + !                 before an operand
    ^                     power, right associative: 2^3^2 is 2^9

So -2^2 is -(2^2) = -4, 2^-1 is 0.5, and !a == b is (!a) == b. A name before a parenthesis is a function, any other a
variable. Functions of vectors take variables alone, and such a variable is no number elsewhere in the formula.

The text is cut into tokens and read once; nothing in it is ever run as code. Its length and nesting are limited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn

from dssm_assets.core.features.formula.functions import (
    CHOICE,
    FOLDS,
    FUNCTIONS,
    INFIX,
    PREFIX,
    VECTOR_FUNCTIONS,
    Function,
)

MAX_LENGTH: Final = 10_000
"""Characters of a formula."""

CONSTANTS: Final[Mapping[str, float]] = MappingProxyType({"_pi": math.pi, "_e": math.e})

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
# Bytes 0-9, not \d: digits of other scripts are no numbers here.
_TOKEN: Final = re.compile(
    rf"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>{_NAME})"
    r"|(?P<symbol>\|\||&&|[<>=!]=|[-+*/^<>=!?:(),&|])"
)
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_SHOWN: Final = 30


class Token(NamedTuple):
    """A piece of a formula: its kind ("number", "name", "symbol" or "end"), its text, and where it starts (from 0)."""

    kind: str
    text: str
    place: int


def tokens_of(text: str) -> list[Token]:
    """Returns the tokens of a formula, the last one of kind "end".

    Raises:
        ValueError: if the text is too long or holds a character that no formula has.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a formula has at most {MAX_LENGTH} characters, got {len(text)}")
    tokens = []
    place = 0
    while place < len(text):
        if space := _SPACE.match(text, place):
            place = space.end()
            continue
        match = _TOKEN.match(text, place)
        if match is None:
            refuse(text, place, "a number, a name or an operator", repr(text[place]))
        tokens.append(Token(str(match.lastgroup), match.group(), place))
        place = match.end()
    return [*tokens, Token("end", "", len(text))]


def check_variable_name(name: str) -> None:
    """Checks that a formula can write the name of a variable.

    Raises:
        ValueError: if it cannot.
    """
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"the name of a variable is made of letters a-z, digits and _ and starts with no digit, got {name!r}")
    if name in CONSTANTS:
        raise ValueError(f"a variable cannot have the name of the constant {name}")


def refuse(text: str, place: int, expected: str, got: str) -> NoReturn:
    """Raises the ValueError that says what was expected at a place (from 0) of a formula, and what stands there."""
    start = max(place - _SHOWN, 0)
    shown = ("..." if start else "") + text[start : place + _SHOWN] + ("..." if len(text) > place + _SHOWN else "")
    raise ValueError(f"formula {shown!r}, position {place + 1}: expected {expected}, got {got}")


MAX_DEPTH: Final = 150
"""How deep operands may be nested: by parentheses, calls, branches, signs, powers, tighter operators."""

_RANKS: Final[Mapping[str, int]] = MappingProxyType(
    {"||": 1, "&&": 2, "|": 3, "&": 4}
    | dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), 5)
    | {"+": 6, "-": 6, "*": 7, "/": 7, "^": 8}
)
_CHOICE_RANK: Final = 0
_POWER_RANK: Final = 8


@dataclass(frozen=True)
class PushNumber:
    """Step: a number for every row."""

    number: float


@dataclass(frozen=True)
class PushVariable:
    """Step: the numbers of a variable."""

    name: str


@dataclass(frozen=True)
class Apply:
    """Step: a function of the last columns, as many as it takes; its result takes their place."""

    function: Function


@dataclass(frozen=True)
class ApplyToVectors:
    """Step: a function of variables that are vectors."""

    function: Function
    names: tuple[str, ...]


Step = PushNumber | PushVariable | Apply | ApplyToVectors


def parse_steps(text: str, variables: tuple[str, ...]) -> tuple[Step, ...]:
    """Returns the steps that compute a formula: operands first, then what is applied to them.

    Raises:
        ValueError: naming the position from 1, what was expected there, and what stands there.
    """
    return _Parser(text, variables, tokens_of(text)).parse()


@dataclass
class _Parser:
    """Reads tokens from left to right by precedence climbing. One instance reads one formula."""

    text: str
    variables: tuple[str, ...]
    tokens: list[Token]
    at: int = 0
    depth: int = 0
    steps: list[Step] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    """Where each variable first stands for a number."""

    def parse(self) -> tuple[Step, ...]:
        self.expression(_CHOICE_RANK)
        if self.next.kind != "end":
            self.unexpected("an operator or the end")
        for step in self.steps:
            if isinstance(step, ApplyToVectors):
                self.check_vectors(step)
        return tuple(self.steps)

    def check_vectors(self, step: ApplyToVectors) -> None:
        for name in step.names:
            if name in self.places:
                call = f"{step.function.name}({', '.join(step.names)})"
                refuse(self.text, self.places[name], "a number", f"{name!r}, which is a vector in {call}")

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, symbol: str, expected: str) -> None:
        if self.next.text != symbol:
            self.unexpected(expected)
        self.at += 1

    def unexpected(self, expected: str) -> NoReturn:
        got = "the end" if self.next.kind == "end" else repr(self.next.text)
        refuse(self.text, self.next.place, expected, f"{got}; equality is written ==" if got == "'='" else got)

    def expression(self, rank: int) -> None:
        """Reads operands joined by operators of this rank or a tighter one."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            refuse(self.text, self.next.place, f"at most {MAX_DEPTH} nested levels", "one more")
        self.operand()
        while (own := _RANKS.get(self.next.text, _CHOICE_RANK)) > _CHOICE_RANK and own >= rank:
            operator = self.take().text
            self.expression(own if own == _POWER_RANK else own + 1)
            self.steps.append(Apply(INFIX[operator]))
        if rank == _CHOICE_RANK and self.next.text == "?":
            self.take()
            self.expression(_CHOICE_RANK)
            self.expect(":", "an operator, or the : of c ? a : b")
            self.expression(_CHOICE_RANK)
            self.steps.append(Apply(CHOICE))
        self.depth -= 1

    def operand(self) -> None:
        if self.next.kind == "number":
            self.number()
        elif self.next.kind == "name":
            name = self.take()
            if self.next.text == "(":
                self.call(name)
            else:
                self.named(name)
        elif self.next.text == "(":
            self.take()
            self.expression(_CHOICE_RANK)
            self.expect(")", "an operator or )")
        elif self.next.text in ("-", "+", "!"):
            sign = self.take().text
            self.expression(_POWER_RANK)
            if sign != "+":
                self.steps.append(Apply(PREFIX[sign]))
        else:
            self.unexpected("a number, a variable, a function or (")

    def number(self) -> None:
        number = float(self.next.text)
        if math.isinf(number):
            self.unexpected("a number that float64 can hold")
        self.take()
        self.steps.append(PushNumber(number))

    def named(self, name: Token) -> None:
        if name.text in CONSTANTS:
            self.steps.append(PushNumber(CONSTANTS[name.text]))
        elif name.text in self.variables:
            self.places.setdefault(name.text, name.place)
            self.steps.append(PushVariable(name.text))
        else:
            known = ", ".join((*self.variables, *CONSTANTS))
            refuse(self.text, name.place, f"a variable or a constant ({known})", repr(name.text))

    def call(self, name: Token) -> None:
        function = VECTOR_FUNCTIONS.get(name.text) or FUNCTIONS.get(name.text) or FOLDS.get(name.text)
        if name.text == "rnd":
            refuse(self.text, name.place, "a function with one answer per row", "'rnd', whose answer differs each time")
        if function is None:
            known = ", ".join(sorted({*VECTOR_FUNCTIONS, *FUNCTIONS, *FOLDS}))
            refuse(self.text, name.place, f"a function ({known})", repr(name.text))
        self.take()
        if name.text in VECTOR_FUNCTIONS:
            names = self.vectors(name)
            self.check_count(name, function.arity, len(names))
            self.steps.append(ApplyToVectors(function, names))
        elif name.text in FUNCTIONS:
            self.check_count(name, function.arity, self.arguments(None))
            self.steps.append(Apply(function))
        else:
            count = self.arguments(function)
            if name.text == "avg":
                self.steps.extend((PushNumber(float(count)), Apply(INFIX["/"])))

    def check_count(self, name: Token, arity: int, count: int) -> None:
        if count != arity:
            refuse(self.text, name.place, f"{arity} argument{'s'[: arity - 1]} of {name.text}", str(count))

    def arguments(self, fold: Function | None) -> int:
        """Reads the arguments of a call up to its ) and returns how many they are, at least one.

        A function of any number of arguments is applied at once, so that few columns are held at a time.
        """
        count = 1
        self.expression(_CHOICE_RANK)
        while self.next.text == ",":
            self.take()
            self.expression(_CHOICE_RANK)
            count += 1
            if fold is not None:
                self.steps.append(Apply(fold))
        self.expect(")", "an operator, a comma or )")
        return count

    def vectors(self, name: Token) -> tuple[str, ...]:
        """Reads the names of the vectors in a call up to its )."""
        names: list[str] = []
        while not names or self.next.text == ",":
            if names:
                self.take()
            if self.next.text not in self.variables:
                self.unexpected(f"the name of a vector ({', '.join(self.variables)}) as argument of {name.text}")
            names.append(self.take().text)
        self.expect(")", f"a comma or ): the arguments of {name.text} are variables alone")
        return tuple(names)
