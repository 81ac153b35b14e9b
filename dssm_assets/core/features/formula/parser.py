"""The grammar of formulas. Parsing turns a text into computation steps.

A formula consists of numbers (1, .5, 1e-3), variables, the constants _pi and _e, parentheses, calls f(x, y) and these
operators, from the loosest to the tightest:

    c ? a : b             right associative
    ||
    &&
    |                     bitwise
    &                     bitwise
    < <= > >= == !=       all of one precedence: 1 < 2 == 1 is (1 < 2) == 1
    + -
    * /
    - + !                 unary
    ^                     power, right associative: 2^3^2 is 2^9

So -2^2 is -(2^2) = -4, 2^-1 is 0.5, and !a == b is (!a) == b. A name before a parenthesis is a function, any other name a
variable. A vector function takes only variables as arguments, and these cannot be used as numbers in the same formula.

The text is never executed as code.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

from dssm_assets.core.features.formula.functions import CHOICE, FOLDS, FUNCTIONS, INFIX, PREFIX, VECTOR_FUNCTIONS, Function

CONSTANTS: Final = {"_pi": math.pi, "_e": math.e}

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
# 0-9, because \d also matches digits of other scripts.
_TOKEN: Final = re.compile(
    rf"[ \t\r\n]*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>{_NAME})"
    r"|(?P<symbol>\|\||&&|[<>=!]=|[-+*/^<>=!?:(),&|])|(?P<end>\Z))"
)
_SHOWN: Final = 30
"""An error quotes so many characters before and after the fault."""


class Token(NamedTuple):
    """A token of a formula: its kind ("number", "name", "symbol" or "end"), its text, and its position from 0."""

    kind: str
    text: str
    position: int


def tokenize(text: str) -> list[Token]:
    """Returns the tokens of a formula, the last one of kind "end".

    Raises:
        ValueError: the text contains a character that no formula has.
    """
    tokens: list[Token] = []
    position = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:].lstrip(" \t\r\n")
            refuse(text, len(text) - len(rest), "a number, a name or an operator", repr(rest[0]))
        kind = str(match.lastgroup)
        tokens.append(Token(kind, match[kind], match.start(kind)))
        position = match.end()
    return tokens


def check_variable_name(name: str) -> None:
    """Raises a ValueError if the name cannot be a variable of a formula."""
    if not re.fullmatch(_NAME, name):
        raise ValueError(
            f"the name of a variable consists of letters a-z, digits and _ and does not start with a digit, got {name!r}"
        )
    if name in CONSTANTS:
        raise ValueError(f"a variable cannot have the name of the constant {name}")


def refuse(text: str, position: int, expected: str, got: str) -> NoReturn:
    """Raises a ValueError with the expected and the actual token at a position (from 0). The message counts from 1."""
    start = max(position - _SHOWN, 0)
    shown = ("..." if start else "") + text[start : position + _SHOWN] + ("..." if len(text) > position + _SHOWN else "")
    raise ValueError(f"formula {shown!r}, position {position + 1}: expected {expected}, got {got}")


_PRECEDENCE: Final = (
    {"||": 1, "&&": 2, "|": 3, "&": 4}
    | dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), 5)
    | {"+": 6, "-": 6, "*": 7, "/": 7, "^": 8}
)
_CHOICE_PRECEDENCE: Final = 0
_POWER_PRECEDENCE: Final = 8


Step = float | str | Function | tuple[Function, tuple[str, ...]]
"""A step works on a stack of columns. A number pushes a constant column, a name pushes the variable's column. A function replaces
its arguments, the last columns, by its result. A function with names reads these vectors and pushes its result."""


def parse_steps(text: str, variables: tuple[str, ...]) -> tuple[Step, ...]:
    """Returns the steps that compute a formula, operands before their operators.

    Raises:
        ValueError: the text is not a formula; the message has the position (from 1), the expected and the actual token.
    """
    return _Parser(text, variables, tokenize(text)).parse()


@dataclass
class _Parser:
    """Reads the tokens of one formula from left to right by precedence climbing."""

    text: str
    variables: tuple[str, ...]
    tokens: list[Token]
    at: int = 0
    steps: list[Step] = field(default_factory=list)
    number_positions: dict[str, int] = field(default_factory=dict)
    """Variable -> position where it is first used as a number."""

    def parse(self) -> tuple[Step, ...]:
        self.expression(_CHOICE_PRECEDENCE)
        if self.next.kind != "end":
            self.unexpected("an operator or the end")
        for function, names in (step for step in self.steps if isinstance(step, tuple)):
            for name in names:
                if name in self.number_positions:
                    got = f"{name!r}, which is a vector in {function.name}({', '.join(names)})"
                    refuse(self.text, self.number_positions[name], "a number", got)
        return tuple(self.steps)

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def advance(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, symbol: str, expected: str) -> None:
        if self.next.text != symbol:
            self.unexpected(expected)
        self.at += 1

    def unexpected(self, expected: str) -> NoReturn:
        got = "the end" if self.next.kind == "end" else repr(self.next.text)
        refuse(self.text, self.next.position, expected, f"{got}; equality is written ==" if got == "'='" else got)

    def expression(self, precedence: int) -> None:
        """Reads operands joined by operators of at least this precedence."""
        self.operand()
        while (own := _PRECEDENCE.get(self.next.text, _CHOICE_PRECEDENCE)) > _CHOICE_PRECEDENCE and own >= precedence:
            operator = self.advance().text
            self.expression(own if own == _POWER_PRECEDENCE else own + 1)
            self.steps.append(INFIX[operator])
        if precedence == _CHOICE_PRECEDENCE and self.next.text == "?":
            self.advance()
            self.expression(_CHOICE_PRECEDENCE)
            self.expect(":", "an operator, or the : of c ? a : b")
            self.expression(_CHOICE_PRECEDENCE)
            self.steps.append(CHOICE)

    def operand(self) -> None:
        if self.next.kind == "number":
            number = float(self.next.text)
            if math.isinf(number):
                self.unexpected("a number that float64 can hold")
            self.advance()
            self.steps.append(number)
        elif self.next.kind == "name":
            name = self.advance()
            if self.next.text == "(":
                self.call(name)
            else:
                self.named(name)
        elif self.next.text == "(":
            self.advance()
            self.expression(_CHOICE_PRECEDENCE)
            self.expect(")", "an operator or )")
        elif self.next.text in ("-", "+", "!"):
            sign = self.advance().text
            self.expression(_POWER_PRECEDENCE)
            if sign != "+":
                self.steps.append(PREFIX[sign])
        else:
            self.unexpected("a number, a variable, a function or (")

    def named(self, name: Token) -> None:
        if name.text in CONSTANTS:
            self.steps.append(CONSTANTS[name.text])
        elif name.text in self.variables:
            self.number_positions.setdefault(name.text, name.position)
            self.steps.append(name.text)
        else:
            known = ", ".join((*self.variables, *CONSTANTS))
            refuse(self.text, name.position, f"a variable or a constant ({known})", repr(name.text))

    def call(self, name: Token) -> None:
        function = VECTOR_FUNCTIONS.get(name.text) or FUNCTIONS.get(name.text) or FOLDS.get(name.text)
        if name.text == "rnd":
            refuse(self.text, name.position, "a function with one result per row", "'rnd', whose result differs each time")
        if function is None:
            known = ", ".join(sorted({*VECTOR_FUNCTIONS, *FUNCTIONS, *FOLDS}))
            refuse(self.text, name.position, f"a function ({known})", repr(name.text))
        self.advance()
        if name.text in VECTOR_FUNCTIONS:
            names = self.vectors(name)
            self.check_count(name, function.arity, len(names))
            self.steps.append((function, names))
        elif name.text in FUNCTIONS:
            self.check_count(name, function.arity, self.arguments(None))
            self.steps.append(function)
        else:
            count = self.arguments(function)
            if name.text == "avg":
                self.steps.extend((float(count), INFIX["/"]))

    def check_count(self, name: Token, arity: int, count: int) -> None:
        if count != arity:
            refuse(self.text, name.position, f"{arity} argument{'s'[: arity - 1]} of {name.text}", str(count))

    def arguments(self, fold: Function | None) -> int:
        """Reads the arguments of a call up to its ). Returns their number, at least one.

        A fold is applied after each argument, which keeps few columns in memory.
        """
        count = 1
        self.expression(_CHOICE_PRECEDENCE)
        while self.next.text == ",":
            self.advance()
            self.expression(_CHOICE_PRECEDENCE)
            count += 1
            if fold is not None:
                self.steps.append(fold)
        self.expect(")", "an operator, a comma or )")
        return count

    def vectors(self, name: Token) -> tuple[str, ...]:
        names: list[str] = []
        while not names or self.next.text == ",":
            if names:
                self.advance()
            if self.next.text not in self.variables:
                self.unexpected(f"the name of a vector ({', '.join(self.variables)}) as argument of {name.text}")
            names.append(self.advance().text)
        self.expect(")", f"a comma or ): the arguments of {name.text} are variables")
        return tuple(names)
