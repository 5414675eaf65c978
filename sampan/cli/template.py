"""The Go-template words that people paste after --format: reads a template into nodes.

Grammar (text/template of Go):

    template  = { text | "{{" action "}}" }            {{- and -}} trim the white space beside them
    action    = comment | "if" pipe | "else" ["if" pipe | "with" pipe] | "range" [vars ":="] pipe | "with" pipe
              | "end" | "break" | "continue" | "define" text | "block" text pipe | "template" text [pipe]
              | [var (":=" | "=")] pipe
    pipe      = command { "|" command }                the value of a command is the next one's last argument
    command   = operand { operand }
    operand   = ( "." | ".A.B" | "$" | "$x" | word | literal | "(" pipe ")" ) { ".A" }

Every error names line and column. A template comes from the caller, data from images: data is never read as a template.
"""

from __future__ import annotations

from sampan.cli.template_tokens import SPACE, located, tokens
from sampan.cli.template_words import FUNCTIONS
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.cli.template_tokens import Token

UNREADABLE = 64  # how docker's inspect, version, info and events end where a template cannot be read
_NEED_END = ("if", "range", "with")
_NAMED = ("define", "block")
_DEEPEST = 100


class Node:
    """A piece of a template: what kind it is decides which fields matter.

    text: value. pipe: parts (commands, each a list of operands), variables, assign. if, with, range: pipe, body, other.
    template: value (the name), pipe or None. define, block: value (the name), body: on the reader's stack only.
    Operands: field (value is "." or a variable or None, names), literal (value), word (value), group (pipe, names).
    """

    __slots__ = ("assign", "at", "body", "kind", "names", "other", "parts", "pipe", "value", "variables")

    def __init__(self, kind: str, at: int, value: Any = None) -> None:
        self.kind = kind
        self.at = at
        self.value = value
        self.names: list[str] = []
        self.parts: list[list[Node]] = []
        self.variables: list[str] = []
        self.assign = False
        self.pipe: Node | None = None
        self.body: list[Node] = []
        self.other: list[Node] = []


class Template:
    """A template that was read, with those that it defines by name; it can be applied to any number of values."""

    __slots__ = ("named", "nodes", "source")

    def __init__(self, source: str, nodes: list[Node], named: dict[str, list[Node]]) -> None:
        self.source = source
        self.nodes = nodes
        self.named = named

    def render(self, data: Any) -> str:
        """Apply the template to a value; raises InvalidArgument where the value has no such field."""
        from sampan.cli.template_apply import apply

        return apply(self, data)

    def header(self, names: Mapping[str, Any]) -> str:
        """Return the heading of a table: the template applied to the names of the columns."""
        from sampan.cli.template_apply import apply

        return apply(self, names, headings=True)

    def error(self, at: int, why: str, hint: str = "") -> InvalidArgument:
        """Make the error for what stands at an offset."""
        return located(self.source, at, why, hint)


def parse(source: str, exit_code: int | None = None) -> Template:
    """Read a template; raises InvalidArgument with line and column, and with the exit code."""
    reader = _Reader(source)
    try:
        return Template(source, reader.read(), reader.named)
    except InvalidArgument as exc:
        exc.exit_code = exit_code or exc.exit_code
        raise


class _Reader:
    """Splits text from actions, and nests the blocks."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: list[Node] = []
        self.into = self.root
        self.named: dict[str, list[Node]] = {}
        self.variables = ["$"]  # those that are in scope
        self.open: list[tuple[Node, list[Node], list[str]]] = []  # blocks, and what is to go on after each

    def read(self) -> list[Node]:
        source, at, trim = self.source, 0, False
        while at < len(source):
            start = source.find("{{", at)
            text = source[at:] if start < 0 else source[at:start]
            if trim:
                text = text.lstrip(SPACE)
            if start >= 0 and _trims(source, start):
                text = text.rstrip(SPACE)
            if text:
                self.into.append(Node("text", at, text))
            if start < 0:
                break
            at, trim = self._action(start)
        if self.open:
            node = self.open[-1][0]
            raise located(source, node.at, f"{{{{{node.kind}}}}} has no {{{{end}}}}")
        return self.root

    def _action(self, start: int) -> tuple[int, bool]:
        begin = start + 3 if _trims(self.source, start) else start + 2
        if self.source[begin:].lstrip(SPACE).startswith("/*"):
            return self._comment(start)
        found, end, trim = tokens(self.source, start, begin)
        if not found:
            raise located(self.source, start, "there is nothing between {{ and }}")
        self._place(_Words(self.source, found, end, self.variables))
        return end, trim

    def _comment(self, start: int) -> tuple[int, bool]:
        close = self.source.find("*/", start)
        rest = self.source[close + 2 :] if close >= 0 else ""
        if rest.startswith("}}"):
            return close + 4, False
        if rest.startswith(" -}}"):
            return close + 6, True
        raise located(self.source, start, "the comment has no */}}")

    def _place(self, words: _Words) -> None:
        kind, value, at = words.tokens[0]
        word = value if kind == "word" else ""
        if word in _NEED_END:
            words.at += 1
            self._open(word, at, words)
        elif word == "else":
            self._else(at, words)
        elif word == "end":
            words.finish(1)
            self._close(at)
        elif word in ("break", "continue"):
            words.finish(1)
            if not self._in_range():
                raise located(self.source, at, f"{{{{{word}}}}} outside of {{{{range}}}}")
            self.into.append(Node(word, at))
        elif word in _NAMED or word == "template":
            words.at += 1
            self._name(word, at, words)
        else:
            self.into.append(words.statement())

    def _in_range(self) -> bool:
        """Say whether a loop is around this place; those around a named template are not."""
        kinds = [node.kind for node, *_ in self.open]
        inner = max((i for i, kind in enumerate(kinds) if kind in _NAMED), default=0)
        return "range" in kinds[inner:]

    def _open(self, word: str, at: int, words: _Words) -> None:
        node = Node(word, at)
        before = list(self.variables)
        node.pipe = words.statement()
        if len(node.pipe.variables) > 1 and word != "range":
            raise located(self.source, at, f"{{{{{word}}}}} declares one variable at most")
        self.into.append(node)
        self._enter(node, before)

    def _name(self, word: str, at: int, words: _Words) -> None:
        """Begin a named template, use one, or both: {{block}} is {{define}} and {{template}} in one."""
        name, piped = words.name(word), word != "define" and words.at < len(words.tokens)
        if word == "define":
            words.finish(2)
            if self.open:
                raise located(self.source, at, "{{define}} stands in no other block")
        else:
            used = Node("template", at, name)
            used.pipe = words.statement() if piped or word == "block" else None
            self.into.append(used)
        if word != "template":
            self._enter(Node(word, at, name), self.variables)
            self.variables = ["$"]

    def _enter(self, node: Node, after: list[str]) -> None:
        self.open.append((node, self.into, after))
        self.into = node.body

    def _else(self, at: int, words: _Words) -> None:
        if not self.open or self.open[-1][0].kind in _NAMED or self.into is self.open[-1][0].other:
            raise located(self.source, at, "{{else}} without {{if}}, {{range}} or {{with}}")
        node, outer, after = self.open[-1]
        self.into = node.other
        words.at = 1
        if words.at == len(words.tokens):
            return
        kind, value, inner_at = words.tokens[1]
        if kind != "word" or value not in ("if", "with") or value != node.kind:
            raise located(self.source, inner_at, "{{else}} takes nothing, or `if` inside {{if}}")
        # `else if` nests: its {{end}} closes both, so the outer block gives up its place on the stack.
        words.at = 2
        self.open.pop()
        self._open(str(value), inner_at, words)
        self.open[-1] = (self.open[-1][0], outer, after)

    def _close(self, at: int) -> None:
        if not self.open:
            raise located(self.source, at, "{{end}} closes nothing")
        node, self.into, self.variables = self.open.pop()
        if node.kind in _NAMED:
            if node.body and self.named.get(node.value):
                raise located(self.source, node.at, f"a template {node.value!r} is defined twice")
            self.named[node.value] = node.body or self.named.get(node.value, [])


def _trims(source: str, start: int) -> bool:
    return source[start + 2 : start + 3] == "-" and source[start + 3 : start + 4] in SPACE


class _Words:
    """Reads the tokens of one action into nodes."""

    def __init__(self, source: str, tokens: list[Token], end: int, variables: list[str]) -> None:
        self.source = source
        self.tokens = tokens
        self.end = end
        self.known = variables
        self.at = 0
        self.depth = 0

    def finish(self, count: int) -> None:
        """Insist that the action has no more tokens than these."""
        if len(self.tokens) > count:
            raise located(self.source, self.tokens[count][2], "there is more than expected here")

    def statement(self) -> Node:
        """Read `[$a, $b :=] pipe` to the end of the action."""
        variables: list[str] = []
        assign = False
        operators = [value for kind, value, _ in self.tokens if kind == "mark" and value in (":=", "=")]
        if operators:
            variables, assign = self._variables(), operators[0] == "="
        pipe = self._pipe()
        if self.at < len(self.tokens):
            raise located(self.source, self.tokens[self.at][2], f"{self.tokens[self.at][1]!r} is not expected here")
        pipe.variables, pipe.assign = variables, assign
        if assign:
            for name in variables:
                self._variable(name, self.tokens[0][2])
        else:
            self.known += variables
        return pipe

    def name(self, word: str) -> str:
        """Take the name of a template."""
        kind, value, at = self._take()
        if kind != "literal" or not isinstance(value, str):
            raise located(self.source, at, f'{{{{{word}}}}} needs a name in quotes, as {{{{{word} "row"}}}}')
        return value

    def _variable(self, name: str, at: int) -> str:
        if name not in self.known:
            raise located(self.source, at, f"there is no variable {name}")
        return name

    def _function(self, name: str, at: int) -> str:
        if name not in FUNCTIONS:
            from sampan.nearest import nearest

            guess = nearest(name, FUNCTIONS)
            raise located(self.source, at, f"no function {name!r}", f"did you mean {guess}?" if guess else "")
        return name

    def _variables(self) -> list[str]:
        names: list[str] = []
        while True:
            kind, value, at = self._take()
            if kind != "variable" or value == "$" or len(names) == 2:
                raise located(self.source, at, "a declaration is `$name :=` or `$index, $value :=`")
            names.append(value)
            kind, value, at = self._take()
            if (kind, value) in (("mark", ":="), ("mark", "=")):
                return names
            if (kind, value) != ("mark", ","):
                raise located(self.source, at, "a declaration is `$name :=` or `$index, $value :=`")

    def _take(self) -> Token:
        if self.at == len(self.tokens):
            raise located(self.source, max(0, self.end - 2), "the action ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _pipe(self) -> Node:
        node = Node("pipe", self.tokens[self.at][2] if self.at < len(self.tokens) else self.end - 2)
        while True:
            node.parts.append(self._command())
            if self.at == len(self.tokens) or self.tokens[self.at][:2] != ("mark", "|"):
                return node
            self.at += 1

    def _command(self) -> list[Node]:
        operands = []
        while self.at < len(self.tokens) and self.tokens[self.at][:2] not in (("mark", "|"), ("mark", ")")):
            operands.append(self._operand())
        if not operands:
            at = self.tokens[self.at][2] if self.at < len(self.tokens) else max(0, self.end - 2)
            raise located(self.source, at, "a value is missing here")
        return operands

    def _group(self, at: int) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise located(self.source, at, "it is nested too deeply")
        node = Node("group", at)
        node.pipe = self._pipe()
        if self.at == len(self.tokens):
            raise located(self.source, at, "a ) is missing for this (")
        self.at += 1
        self.depth -= 1
        return node

    def _operand(self) -> Node:
        kind, value, at = self._take()
        if kind == "mark" and value == "(":
            node = self._group(at)
        elif kind == "field":
            node = Node("field", at, ".")
            node.names = [value] if value else []
        elif kind == "variable":
            node = Node("field", at, self._variable(value, at))
        elif kind == "word":
            node = Node(kind, at, self._function(value, at))
        elif kind == "literal":
            node = Node(kind, at, value)
        elif kind == "chain":
            raise located(self.source, at, "a function has no fields: put it into parentheses")
        else:
            raise located(self.source, at, f"{value!r} is not expected here")
        while node.kind != "word" and self.at < len(self.tokens) and self.tokens[self.at][0] == "chain":
            node.names.append(self._take()[1])
        return node
