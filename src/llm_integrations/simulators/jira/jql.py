"""JQL's grammar: text in, a tree out, or the 400 Jira sends for text it cannot read.

Quoting follows Atlassian's own parser (npm @atlaskit/jql-parser 3.0.1): double or single quotes;
the escapes are backslash with quote, backslash, n, r, t, space or uXXXX, any other is an error;
control characters are refused even in quotes; a bare word may hold no reserved character and be no
reserved word. Knows no issues: `query` gives the tree its meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .refusal import Refused


@dataclass(slots=True, frozen=True)
class Value:
    """A literal."""

    text: str


@dataclass(slots=True, frozen=True)
class Call:
    """A function such as `currentUser()`."""

    name: str
    arguments: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Empty:
    """The keyword EMPTY or NULL."""


Operand = Value | Call | Empty


@dataclass(slots=True, frozen=True)
class Clause:
    """A field compared with operands (several for `in`)."""

    field: str
    operator: str
    operands: tuple[Operand, ...]


@dataclass(slots=True, frozen=True)
class Not:
    """A negated condition."""

    part: Node


@dataclass(slots=True, frozen=True)
class All:
    """Conditions joined by AND."""

    parts: tuple[Node, ...]


@dataclass(slots=True, frozen=True)
class Some:
    """Conditions joined by OR."""

    parts: tuple[Node, ...]


Node = Clause | Not | All | Some


@dataclass(slots=True, frozen=True)
class Order:
    """One ORDER BY field."""

    field: str
    descending: bool | None


@dataclass(slots=True, frozen=True)
class Query:
    """A parsed query; `where` is None when it restricts nothing."""

    where: Node | None
    order: tuple[Order, ...]


@dataclass(slots=True, frozen=True)
class _Token:
    """A piece of the text: `kind` is word, text (quoted), op or end."""

    kind: str
    text: str
    at: int


MAX_ORDER_FIELDS: Final = 7
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\", " ": " "}
_SPACE: Final = " \t\r\n"
_OPERATOR: Final = re.compile(r"!=|!~|>=|<=|&&|\|\||[=~<>!&|(),]")
_BARE: Final = re.compile(r"[^\s\"'=!<>()~,\[\]|&{}*/%+^$#@?;\\]+")
_CUSTOM_FIELD: Final = re.compile(r"cf\[\d+\]", re.IGNORECASE)
_CONTROL: Final = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\ufffe]")
_COMPARISONS: Final = frozenset({"=", "!=", "~", "!~", ">", "<", ">=", "<="})
_RESERVED: Final = frozenset(
    "abort access add after alias all alter and any are as asc at audit avg be before begin "
    "between boolean break by byte catch cf char character check checkpoint collate collation "
    "column commit connect continue count create current date decimal declare decrement default "
    "defaults define delete delimiter desc difference distinct divide do double drop else empty "
    "encoding end equals escape exclusive exec execute exists explain false fetch file field first "
    "float for from function go goto grant greater group having identified if immediate in "
    "increment index initial inner inout input insert int integer intersect intersection into is "
    "isempty isnull join last left less like limit lock long max min minus mode modify modulo more "
    "multiply next noaudit not notin nowait null number object of on option or order outer output "
    "power previous prior privileges public raise raw remainder rename resource return returns "
    "revoke right row rowid rownum rows select session set share size sqrt start strict string "
    "subtract sum synonym table then to trans transaction trigger true uid union unique update "
    "user validate values view when whenever where while with".split()
) - {"all", "any", "are", "as", "at", "be", "for", "if", "into", "of", "on", "then", "with"}
_KEYWORDS_AS_FIELD: Final = frozenset({"and", "or", "not", "in", "is", "empty", "null", "order"})


def parse(text: str) -> Query:
    """Read a query.

    Raises:
        Refused: With status 400 and Jira's words, when the text is no JQL.
    """
    return _Parser(_tokens(text)).query()


def _refuse(message: str, text_at: int) -> Refused:
    return Refused(400, f"Error in the JQL Query: {message} (line 1, character {text_at + 1}).")


def _tokens(text: str) -> list[_Token]:
    """Cut the text into tokens."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in _SPACE:
            at += 1
            continue
        if char in "\"'":
            value, end = _quoted(text, at)
            tokens.append(_Token("text", value, at))
        elif match := _OPERATOR.match(text, at):
            end = match.end()
            tokens.append(_Token("op", match[0], at))
        elif match := _CUSTOM_FIELD.match(text, at) or _BARE.match(text, at):
            end = match.end()
            tokens.append(_Token("word", match[0], at))
        else:
            message = f"The character '{char}' is a reserved JQL character. Use quotes around it"
            raise _refuse(message, at)
        at = end
    return [*tokens, _Token("end", "", len(text))]


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Read a quoted string; return its value and where it ends."""
    quote, value, at = text[start], "", start + 1
    while at < len(text):
        char = text[at]
        if char == quote:
            return value, at + 1
        if _CONTROL.match(char):
            raise _refuse(f"Illegal character U+{ord(char):04X} in a quoted string", at)
        if char != "\\":
            value, at = value + char, at + 1
            continue
        escaped, at = _escape(text, at)
        value += escaped
    raise _refuse("The quoted string has not been completed", start)


def _escape(text: str, at: int) -> tuple[str, int]:
    """Read one escape; return the character and where it ends."""
    code = text[at + 1 : at + 2]
    if code in _ESCAPES and code:
        return _ESCAPES[code], at + 2
    if code == "u" and re.fullmatch("[0-9a-fA-F]{4}", text[at + 2 : at + 6]):
        return chr(int(text[at + 2 : at + 6], 16)), at + 6
    raise _refuse(f"'\\{code}' is an illegal JQL escape sequence", at)


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def query(self) -> Query:
        """Read a whole query to its end."""
        empty = self._is_word("order") or self._peek().kind == "end"
        where = None if empty else self._any()
        order = self._order() if self._is_word("order") else ()
        if self._peek().kind != "end":
            raise self._unexpected("either 'OR' or 'AND'")
        return Query(where, order)

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _is_word(self, *words: str) -> bool:
        token = self._peek()
        return token.kind == "word" and token.text.lower() in words

    def _is_op(self, *operators: str) -> bool:
        token = self._peek()
        return token.kind == "op" and token.text in operators

    def _unexpected(self, wanted: str) -> Refused:
        token = self._peek()
        got = f"'{token.text}'" if token.kind != "end" else "the end of the query"
        return _refuse(f"Expecting {wanted} but got {got}", token.at)

    def _any(self) -> Node:
        parts = [self._all()]
        while self._is_word("or") or self._is_op("|", "||"):
            self._next()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _all(self) -> Node:
        parts = [self._one()]
        while self._is_word("and") or self._is_op("&", "&&"):
            self._next()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Node:
        if self._is_word("not") or self._is_op("!"):
            self._next()
            return Not(self._one())
        if self._is_op("("):
            self._next()
            inner = self._any()
            self._close()
            return inner
        return self._clause()

    def _close(self) -> None:
        if not self._is_op(")"):
            raise self._unexpected("')'")
        self._next()

    def _clause(self) -> Clause:
        field = self._field()
        token = self._peek()
        if token.kind == "op" and token.text in _COMPARISONS:
            self._next()
            return Clause(field, token.text, (self._operand(),))
        if self._is_word("is"):
            self._next()
            operator = "is not" if self._take_word("not") else "is"
            if not self._is_word("empty", "null"):
                raise self._unexpected("'EMPTY' or 'NULL'")
            self._next()
            return Clause(field, operator, (Empty(),))
        operator = "not in" if self._take_word("not") else "in"
        if not self._take_word("in"):
            raise self._unexpected("operator")
        return Clause(field, operator, self._operands())

    def _take_word(self, word: str) -> bool:
        found = self._is_word(word)
        self._at += found
        return found

    def _field(self) -> str:
        token = self._peek()
        plain = token.kind == "word" and token.text.lower() not in _KEYWORDS_AS_FIELD
        if not plain and token.kind != "text":
            raise self._unexpected("a field name")
        return self._next().text

    def _operands(self) -> tuple[Operand, ...]:
        if self._peek().kind == "word":
            return (self._operand(),)
        if not self._is_op("("):
            raise self._unexpected("'('")
        self._next()
        operands = [self._operand()]
        while self._is_op(","):
            self._next()
            operands.append(self._operand())
        self._close()
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._peek()
        if token.kind == "text":
            return Value(self._next().text)
        if token.kind != "word":
            raise self._unexpected("either a value, list or function")
        if self._is_word("empty", "null"):
            self._next()
            return Empty()
        self._next()
        if self._is_op("("):
            return self._call(token.text)
        if token.text.lower() in _RESERVED:
            message = (
                f"'{token.text}' is a reserved JQL word. You must surround it in quotation marks"
            )
            raise _refuse(message, token.at)
        return Value(token.text)

    def _call(self, name: str) -> Call:
        self._next()
        arguments: list[str] = []
        while not self._is_op(")"):
            if self._peek().kind not in {"text", "word"}:
                raise self._unexpected("an argument or ')'")
            arguments.append(self._next().text)
            if not self._is_op(",", ")"):
                raise self._unexpected("')' or ','")
            if self._is_op(","):
                self._next()
        self._close()
        return Call(name.lower(), tuple(arguments))

    def _order(self) -> tuple[Order, ...]:
        self._next()
        if not self._take_word("by"):
            raise self._unexpected("'BY'")
        orders = [self._order_field()]
        while self._is_op(","):
            self._next()
            orders.append(self._order_field())
        if len(orders) > MAX_ORDER_FIELDS:
            raise Refused(400, f"JQL can be ordered by at most {MAX_ORDER_FIELDS} fields.")
        return tuple(orders)

    def _order_field(self) -> Order:
        field = self._field()
        if self._take_word("asc"):
            return Order(field, descending=False)
        return Order(field, descending=True if self._take_word("desc") else None)
