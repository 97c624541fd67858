"""From the text of a formula to a LazyTensor, by a grammar: nothing is ever executed.

    formula    := union [("<" | ">" | "<=" | ">=" | "==" | "!=") union]
    union      := sum {"|" sum}
    sum        := product {("+" | "-") product}
    product    := factor {("*" | "/") factor}
    factor     := {"-" | "+"} power
    power      := atom ["**" factor]
    atom       := number | variable | keyword "(" [argument {"," argument}] ")" | "(" formula ")"
    argument   := formula | "[" [integer {"," integer}] "]" | "Ind" "(" [integer {"," integer}] ")"

Operators bind as in Python. A whole text may also be a reduction, as `Sum_Reduction(formula, category)`, or `Grad`,
`Diff`, `Grad_WithSavedForward` or `Diff_WithSavedForward` of one: these alone take a reduction as an argument. Keywords
are the rows of `KEYWORDS`; variables are what the aliases declare:

    alias      := [name "="] ("Vi" | "Vj" | "Pm") "(" [position ","] dim ")"
                | [name "="] "Var" "(" position "," dim "," category ")"
"""

from __future__ import annotations

import operator
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pylazy.execution.templates import Argument
from pylazy.formula_texts.formula_keywords import EITHER, FORMULA, INTEGER, INTEGERS, KEYWORDS, REDUCTION, Keyword
from pylazy.formula_texts.reduction_texts import TextReduction
from pylazy.lazy_tensor import LazyTensor, Var
from pylazy.runtime.errors import FormulaError, PylazyError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\*\*|<=|>=|==|!=|[-+*/|<>()\[\],=]))",
    re.ASCII,
)
_COMPARISON, _UNION, _SUM, _PRODUCT, _POWER = range(5)
_OPERATORS: Mapping[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "<": (_COMPARISON, operator.lt),
    ">": (_COMPARISON, operator.gt),
    "<=": (_COMPARISON, operator.le),
    ">=": (_COMPARISON, operator.ge),
    "==": (_COMPARISON, operator.eq),
    "!=": (_COMPARISON, operator.ne),
    "|": (_UNION, operator.or_),
    "+": (_SUM, operator.add),
    "-": (_SUM, operator.sub),
    "*": (_PRODUCT, operator.mul),
    "/": (_PRODUCT, operator.truediv),
    "**": (_POWER, operator.pow),
}
_FOLDED = ("+", "-", "*")
_CATEGORIES = {"Vi": 0, "Vj": 1, "Pm": 2, "Vx": 0, "Vy": 1}  # the last two are pykeops' former names
_AXES = ("i", "j", "")
_MAX_DEPTH = 500  # of calls in this module; Python nests a thousand, and the caller has made some
_MAX_DIGITS = 308  # as many as the largest float64 has
_SHOWN_CHARACTERS = 100


class Token(NamedTuple):
    """A word of the text.

    Attributes:
        kind: "number", "name", "sign" or "end".
        text: as written.
        start: of its first character.
    """

    kind: str
    text: str
    start: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def parse_formula(text: str, variables: Mapping[str, Argument]) -> LazyTensor:
    """Read a formula.

    Args:
        text: see the grammar above.
        variables: what the names in it stand for.

    Raises:
        FormulaError: the text is no formula; the message shows where.
        PylazyError: an operation cannot be applied to its operands, as in `LazyTensor`; the message shows where.
    """
    parser = _Parser(text, "formula", variables)
    value = parser.formula()
    parser.expect_end("an operator")
    return parser.operand(value, parser.start)


def parse_reduction(text: str, variables: Mapping[str, Argument]) -> LazyTensor | TextReduction:
    """Read a formula, or a reduction of one; arguments and errors as for `parse_formula`."""
    parser = _Parser(text, "formula", variables)
    value = parser.formula()
    parser.expect_end("an operator")
    return value if isinstance(value, TextReduction) else parser.operand(value, parser.start)


def parse_alias(text: str, place: int) -> Argument:
    """Read a declaration of a variable.

    Args:
        text: see the grammar above.
        place: of the alias in its list, the position of a variable that gives none.

    Raises:
        FormulaError: the text is no declaration; the message shows where.
    """
    parser = _Parser(text, f"alias {place}", {})
    word = parser.expect("name", "a name, or one of Vi, Vj, Pm, Var")
    name = ""
    if parser.accept("="):
        name = word.text
        word = parser.expect("name", "one of Vi, Vj, Pm, Var")
    kind = word.text
    if kind != "Var" and kind not in _CATEGORIES:
        parser.refuse(f"found {word}, expected one of Vi, Vj, Pm, Var", word.start)
    parser.expect_sign("(")
    numbers = [parser.integer()]
    while len(numbers) < (3 if kind == "Var" else 2) and parser.accept(","):
        numbers.append(parser.integer())
    if kind == "Var" and len(numbers) < 3:
        parser.expect_sign(",")
    parser.expect_sign(")")
    parser.expect_end("nothing more")
    if kind == "Var":
        position, dim, category = numbers
    else:
        category = _CATEGORIES[kind]
        position, dim = numbers if len(numbers) == 2 else (place, numbers[0])
    if dim < 1 or category > 2:
        parser.refuse(f"found dimension {dim} and category {category}, expected at least 1, and 0, 1 or 2", word.start)
    return Argument(position, _AXES[category], dim, name)


class _Parser:
    """A position in a text, and what can be read there.

    Values are numbers, tuples of integers, LazyTensors and reductions; numbers stay numbers as long as they only meet
    numbers.
    """

    def __init__(self, text: str, what: str, variables: Mapping[str, Argument]) -> None:
        self._text = text
        self._what = what
        self._variables = variables
        self._depth = 0
        self._end = 0
        self._token = Token("end", "", 0)
        self.start = 0
        self._advance()

    # Words ------------------------------------------------------------------------------------------------------------

    def _advance(self) -> Token:
        token = self._token
        match = _TOKEN.match(self._text, self._end)
        if match is not None:
            kind = str(match.lastgroup)
            self._token = Token(kind, match[kind], match.start(kind))
            self._end = match.end()
        else:
            rest = len(self._text) - len(self._text[self._end :].lstrip())
            if rest < len(self._text):
                self.refuse(f"found {self._text[rest]!r}, expected a formula without it", rest)
            self._token = Token("end", "", rest)
        return token

    def accept(self, sign: str) -> bool:
        """Read a sign if it comes next."""
        if self._token.kind == "sign" and self._token.text == sign:
            self._advance()
            return True
        return False

    def expect_sign(self, sign: str) -> None:
        """Read a sign that must come next."""
        if not self.accept(sign):
            self.refuse(f"found {self._token}, expected {sign!r}", self._token.start)

    def expect(self, kind: str, expected: str) -> Token:
        """Read a word of a kind that must come next."""
        if self._token.kind != kind:
            self.refuse(f"found {self._token}, expected {expected}", self._token.start)
        return self._advance()

    def expect_end(self, expected: str) -> None:
        """Check that the text ends here."""
        if self._token.kind != "end":
            self.refuse(f"found {self._token}, expected {expected} or the end", self._token.start)

    def integer(self) -> int:
        """Read an integer without a sign."""
        word = self.expect("number", "an integer")
        value = self._number(word)
        if not isinstance(value, int):
            self.refuse(f"found {word}, expected an integer", word.start)
        return value

    def _number(self, word: Token) -> int | float:
        if len(word.text) > _MAX_DIGITS:
            self.refuse(f"found a number of {len(word.text)} digits, expected at most {_MAX_DIGITS}", word.start)
        return int(word.text) if word.text.isdigit() else float(word.text)

    # The grammar ------------------------------------------------------------------------------------------------------

    def formula(self, loosest: int = _COMPARISON) -> Any:
        """Read operators that bind at least so tightly, and their operands (precedence climbing)."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self.refuse("the formula is nested too deeply: give parts of it as one sum or product", self._token.start)
        start = self._token.start
        left = self._factor()
        compared = False
        while self._token.kind == "sign" and self._token.text in _OPERATORS:
            level, apply = _OPERATORS[self._token.text]
            if level < loosest:
                break
            sign = self._advance()
            if level == _COMPARISON:
                if compared:
                    self.refuse(f"found {sign} after a comparison, expected parentheses around one of them", sign.start)
                compared = True
            right_start = self._token.start
            right = self.formula(_POWER if level == _POWER else level + 1)
            left = self._operate(sign, apply, (left, start), (right, right_start))
        self._depth -= 1
        self.start = start
        return left

    def _factor(self) -> Any:
        negative = False
        start = self._token.start
        signed = False
        while self._token.kind == "sign" and self._token.text in "+-":
            negative ^= self._advance().text == "-"
            signed = True
        if not signed:
            return self._atom()
        # A sign binds less tightly than a power: -x**2 is -(x**2).
        value = self.formula(_POWER)
        if not negative:
            return value
        if isinstance(value, tuple | TextReduction):
            self.operand(value, start)
        return -value

    def _atom(self) -> Any:
        word = self._token
        if word.kind == "number":
            return self._number(self._advance())
        if word.kind == "name":
            return self._named(self._advance())
        if self.accept("("):
            self._depth += 2
            value = self.formula()
            self._depth -= 2
            self.expect_sign(")")
            return value
        if self.accept("["):
            return self._integers("]")
        return self.refuse(f"found {word}, expected a number, a variable or a function", word.start)

    def _integers(self, closing: str) -> tuple[int, ...]:
        values: list[int] = []
        while not self.accept(closing):
            if values:
                self.expect_sign(",")
            values.append(self.integer())
        return tuple(values)

    def _named(self, word: Token) -> Any:
        name = word.text
        called = self._token.kind == "sign" and self._token.text == "("
        if name in self._variables and (not called or name not in KEYWORDS):
            if called:
                self.refuse(f"found '(' after {word}, which is a variable, expected an operator", self._token.start)
            declared = self._variables[name]
            return Var(declared.position, declared.dim, _AXES.index(declared.axes))
        if name == "Ind" and self.accept("("):
            return self._integers(")")
        keyword = KEYWORDS.get(name)
        if keyword is None:
            self._refuse_name(word, called=called)
        if not called:
            self.refuse(f"found {self._token} after the function {name}, expected '('", self._token.start)
        return self._call(word, keyword)

    def _call(self, word: Token, keyword: Keyword) -> Any:
        self.expect_sign("(")
        self._depth += 4
        given: list[Any] = []
        starts = []
        while not self.accept(")"):
            if given:
                self.expect_sign(",")
            starts.append(self._token.start)
            given.append(self.formula())
        self._depth -= 4
        parameters = keyword.parameters()
        required = sum(not parameter.optional for parameter in parameters)
        if not required <= len(given) <= len(parameters):
            counted = "1 argument" if len(given) == 1 else f"{len(given)} arguments"
            self.refuse(f"{keyword.name} was given {counted}, expected {keyword.name}({keyword.signature})", word.start)
        arguments: list[Any] = []
        for value, start, parameter in zip(given, starts, parameters, strict=False):
            is_reduction = isinstance(value, TextReduction)
            if parameter.kind == FORMULA or (parameter.kind == EITHER and not is_reduction):
                arguments.append(self.operand(value, start))
                continue
            if parameter.kind in (EITHER, REDUCTION):
                if not is_reduction:
                    self.refuse(
                        f"found a formula for {parameter.name} of {keyword.name}, expected a reduction, as "
                        "Sum_Reduction(f, 0)",
                        start,
                    )
                arguments.append(value)
                continue
            if parameter.kind == INTEGERS and isinstance(value, int):
                arguments.append((value,))
                continue
            if not isinstance(value, int if parameter.kind == INTEGER else tuple):
                found = "a formula" if isinstance(value, LazyTensor | TextReduction) else f"{value!r}"
                article = "an integer" if parameter.kind == INTEGER else "a list of integers, as [2, 3]"
                self.refuse(f"found {found} for {parameter.name} of {keyword.name}, expected {article}", start)
            arguments.append(value)
        return self._build(keyword.builder(), arguments, word.start)

    # Values -----------------------------------------------------------------------------------------------------------

    def operand(self, value: Any, start: int) -> LazyTensor:
        """Make a LazyTensor of a value that was read at `start`."""
        if isinstance(value, tuple):
            self._refuse_list(start)
        if isinstance(value, TextReduction):
            self.refuse(
                f"found the reduction {value.name}_Reduction, expected a formula: a reduction is the whole text, or "
                "the first argument of Grad, Diff and the like",
                start,
            )
        if isinstance(value, LazyTensor):
            return value
        made: LazyTensor = self._build(LazyTensor, (value,), start)
        return made

    def _operate(
        self, sign: Token, apply: Callable[[Any, Any], Any], left: tuple[Any, int], right: tuple[Any, int]
    ) -> Any:
        values = (left[0], right[0])
        if sign.text in _FOLDED and all(isinstance(value, int | float) for value in values):
            try:
                return apply(*values)
            except OverflowError:
                self.refuse("found an integer beyond float64, expected at most 308 digits", left[1])
        base = self.operand(*left)
        # An exponent that is a number stays one: integers are exact products then.
        exponent = sign.text == "**" and isinstance(right[0], int | float)
        return self._build(apply, (base, right[0] if exponent else self.operand(*right)), sign.start)

    def _build(self, builder: Callable[..., Any], arguments: Any, start: int) -> Any:
        try:
            return builder(*arguments)
        except PylazyError as error:
            # The message ends with the user's line, which stays the last.
            message, separator, place = str(error).rpartition("\n  at ")
            raise type(error)(f"{self._shown(message, start)}{separator}{place}") from None

    # Messages ---------------------------------------------------------------------------------------------------------

    def refuse(self, message: str, start: int) -> NoReturn:
        """Say what is wrong at a place of the text."""
        raise FormulaError(at_user_line(self._shown(f"{self._what}: {message}", start)))

    def _refuse_list(self, start: int) -> NoReturn:
        self.refuse("found a list, expected a formula: lists are arguments of TensorDot and Kron", start)

    def _refuse_name(self, word: Token, *, called: bool) -> NoReturn:
        known = list(KEYWORDS) if called else [*self._variables, *KEYWORDS]
        folded = {name.lower(): name for name in reversed(known)}
        close = get_close_matches(word.text.lower(), list(folded), n=1, cutoff=0.6)
        hint = f": did you mean {folded[close[0]]}?" if close else ""
        if called:
            self.refuse(f"no function is called {word.text}{hint}", word.start)
        names = ", ".join(self._variables) or "none"
        self.refuse(f"no variable is called {word.text}, the aliases declare {names}{hint}", word.start)

    def _shown(self, message: str, start: int) -> str:
        """Add the text to a message, with a caret under the character at `start`."""
        text = re.sub(r"\s", " ", self._text)
        first = max(0, min(start - _SHOWN_CHARACTERS // 2, len(text) - _SHOWN_CHARACTERS))
        shown = text[first : first + _SHOWN_CHARACTERS]
        before, after = "..." if first else "", "..." if first + _SHOWN_CHARACTERS < len(text) else ""
        return f"{message}\n    {before}{shown}{after}\n    {' ' * (len(before) + start - first)}^"
