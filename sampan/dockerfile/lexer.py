"""The first pass over a Dockerfile: bytes to nodes, one per instruction, as BuildKit's parser divides them.

It owns parser directives, comments, continuation lines, here-documents and the limits that keep a hostile file cheap;
it does not know what an instruction means. Lines stay bytes until they are needed, so that memory is bounded by the
file's size. Every fault is a BuildError with file, lines and excerpt.
"""

from __future__ import annotations

from sampan.dockerfile.forms import first_word, json_array, leading_flags
from sampan.dockerfile.heredoc import Heredoc, announced
from sampan.dockerfile.located import SPACE, located, shown
from sampan.errors import BuildError

MAX_SIZE = 16 << 20
MAX_LINE = 65535  # Docker's own limit: the token size of Go's bufio.Scanner
MAX_LINES = 1_000_000
MAX_INSTRUCTIONS = 10_000
MAX_EXPANDED = 16 << 20  # characters that all words of a file together may become

_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")
_BOM = b"\xef\xbb\xbf"


class Node:
    """One instruction: keyword in capitals, flags without quotes, the rest of the line, and where it stands."""

    __slots__ = ("end_line", "flags", "heredocs", "keyword", "original", "source", "start_line", "value")

    def __init__(self, source: Dockerfile, original: str, start_line: int, end_line: int) -> None:
        self.source = source
        self.original = original
        self.start_line = start_line
        self.end_line = end_line
        keyword, rest = first_word(original)
        self.keyword = keyword.upper() if keyword.isascii() else keyword
        self.flags: list[str] = []
        if rest.startswith("--"):
            self.flags, rest = leading_flags(rest)
        self.value = rest.strip(SPACE)
        self.heredocs: list[Heredoc] = []

    def error(self, message: str, hint: str = "") -> BuildError:
        """Make a BuildError that points at this instruction."""
        made = located(message, hint, self.source.name, self.source.lines, self.start_line, self.end_line)
        made.instruction = self.original
        return made

    def charge(self, count: int) -> None:
        """Note that expansion made `count` characters of a word; a located BuildError when a file makes too many."""
        self.source.expanded += count
        if self.source.expanded > MAX_EXPANDED:
            raise self.error(f"the words up to here become more than {MAX_EXPANDED} characters")

    def inner(self) -> Node:
        """Return the instruction that this one (ONBUILD) holds, with its here-documents."""
        node = Node(self.source, self.value, self.start_line, self.end_line)
        node.heredocs = self.heredocs
        return node


class Dockerfile:
    """A lexed file: its name, lines, directives, escape character and nodes."""

    __slots__ = ("directives", "escape", "expanded", "lines", "name", "nodes")

    def __init__(self, name: str, lines: list[bytes]) -> None:
        self.expanded = 0
        self.name = name
        self.lines = lines
        self.directives: dict[str, str] = {}
        self.escape = "\\"
        self.nodes: list[Node] = []

    def error(self, message: str, first: int, last: int = 0, hint: str = "") -> BuildError:
        """Make a BuildError that points at lines first to last."""
        return located(message, hint, self.name, self.lines, first, last or first)


def parse(text: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Divide a Dockerfile into nodes; raise a located BuildError where it cannot be done."""
    _check_size(text, name)
    lines = text.removeprefix(_BOM).split(b"\n")
    if not lines[-1]:
        lines.pop()
    file = Dockerfile(name, lines)
    _check_lines(file, text)
    start = _read_directives(file)
    _Reader(file).read(start)
    if not file.nodes:
        raise file.error("the file has no instructions", 1, hint="begin with FROM and the name of an image")
    return file


def _check_size(text: bytes, name: str) -> None:
    """Refuse a file that would cost too much to divide into lines."""
    if len(text) > MAX_SIZE:
        line = text.count(b"\n", 0, MAX_SIZE) + 1
        raise located(f"the file is larger than {MAX_SIZE >> 20} MiB", "", name, [], line, line)
    if text.count(b"\n") > MAX_LINES:
        raise located(f"the file has more than {MAX_LINES} lines", "", name, [], MAX_LINES + 1, MAX_LINES + 1)


def _check_lines(file: Dockerfile, text: bytes) -> None:
    """Refuse what is not lines of text."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise file.error("the file is UTF-16 text", 1, hint="save it as UTF-8")
    if b"\0" in text:
        line = text.count(b"\n", 0, text.index(b"\0")) + 1
        raise file.error("there is a NUL byte, so this is not a text file", line)
    if len(text) > MAX_LINE and max(map(len, file.lines)) > MAX_LINE:
        number, length = next((n, len(line)) for n, line in enumerate(file.lines, 1) if len(line) > MAX_LINE)
        raise file.error(f"the line has {length} bytes, more than the {MAX_LINE} allowed", number)


def _read_directives(file: Dockerfile) -> int:
    """Read the parser directives, which end at the first other line; return the index of that line."""
    for index, raw in enumerate(file.lines):
        found = _directive(raw.decode("utf-8", "replace").strip(SPACE))
        if found is None:
            return index
        key, value = found
        if key in file.directives:
            raise file.error(f"only one {key} parser directive can be used", index + 1)
        file.directives[key] = value
        if key == "escape":
            if value not in ("\\", "`"):
                raise file.error(f"invalid escape token {shown(value)}: it is either ` or \\", index + 1)
            file.escape = value
        elif key == "syntax" and not _is_our_syntax(value):
            hint = "remove the line to build with sampan's own Dockerfile language"
            raise file.error(f"cannot build with the external syntax {shown(value)}", index + 1, hint=hint)
    return len(file.lines)


def _directive(line: str) -> tuple[str, str] | None:
    """Read `# key = value` of a known key."""
    if not line.startswith("#"):
        return None
    key, _, value = line[1:].partition("=")
    key = key.strip(SPACE).lower()
    value = value.strip(SPACE)
    return (key, value) if value and key in _DIRECTIVES else None


def _is_our_syntax(reference: str) -> bool:
    """Tell whether a syntax image is docker/dockerfile of major version 1, whose language this package reads."""
    name = reference.partition("@")[0].removeprefix("docker.io/")
    repository, _, tag = name.partition(":")
    if repository != "docker/dockerfile":
        return False
    return tag in ("", "1", "latest", "labs", "experimental") or tag.startswith(("1.", "1-"))


class _Reader:
    """Walk the lines once and gather nodes."""

    __slots__ = ("at", "escape", "file", "lines")

    def __init__(self, file: Dockerfile) -> None:
        self.file = file
        self.lines = file.lines
        self.escape = file.escape.encode()
        self.at = 0

    def read(self, start: int) -> None:
        """Append a node to the file for each instruction from index start on."""
        self.at = start
        while self.at < len(self.lines):
            first = self.at + 1
            text = self._logical_line()
            if text:
                self._add(text, first)

    def _add(self, text: str, first: int) -> None:
        node = Node(self.file, text, first, self.at)
        if len(self.file.nodes) == MAX_INSTRUCTIONS:
            raise node.error(f"the file has more than {MAX_INSTRUCTIONS} instructions")
        if "<<" in text and _can_announce(node):
            node.heredocs = announced(text)
            for document in node.heredocs:
                document.content = self._document(document, node)
            node.end_line = self.at
        self.file.nodes.append(node)

    def _logical_line(self) -> str:
        """Join a line with its continuations; comments and empty lines between them do not end it."""
        line = _bare(self._next())
        if line.startswith(b"#"):
            return ""
        line, more = self._continued(line)
        if not more:
            return _decoded(line).strip(SPACE)
        parts = [line]
        while more and self.at < len(self.lines):
            line = self._next()
            bare = _bare(line)
            if bare and not bare.startswith(b"#"):
                line, more = self._continued(line)
                parts.append(line)
        return _decoded(b"".join(parts)).strip(SPACE)

    def _next(self) -> bytes:
        line = self.lines[self.at]
        self.at += 1
        return line.rstrip(b"\r")

    def _continued(self, line: bytes) -> tuple[bytes, bool]:
        """Cut the escape character that ends a line; doubled, it is an ordinary character and ends nothing."""
        bare = line.rstrip(b" \t")
        if bare.endswith(self.escape) and bare[-2:-1] != self.escape:
            return bare[:-1], True
        return line, False

    def _document(self, document: Heredoc, node: Node) -> str:
        """Take lines up to the terminator; the content keeps their line ends."""
        terminator = document.name.encode("utf-8", "surrogatepass")
        begin = self.at
        while self.at < len(self.lines):
            line = self._next()
            if (line.lstrip(b"\t") if document.chomp else line) == terminator:
                return self._content(begin, self.at - 1)
        node.end_line = node.start_line
        raise node.error(
            f"unterminated heredoc: no line is {shown(document.name)} alone",
            "the closing word stands on its own line, without blanks before or after it",
        )

    def _content(self, begin: int, end: int) -> str:
        lines = self.lines[begin:end]
        try:
            return (b"\n".join(lines) + b"\n").decode() if lines else ""
        except UnicodeDecodeError:
            number = next(n for n in range(begin, end) if _is_not_utf8(self.lines[n]))
            raise self.file.error("the heredoc is not UTF-8 text", number + 1) from None


def _can_announce(node: Node) -> bool:
    """Tell whether an instruction takes here-documents: RUN, COPY and ADD do, except in JSON form."""
    if node.keyword == "ONBUILD":
        node = node.inner()
    if node.keyword not in _HEREDOC_KEYWORDS:
        return False
    try:
        return json_array(node.value) is None
    except ValueError:
        return False  # the second pass reports it


def _bare(line: bytes) -> bytes:
    """Cut white space at the left; a line pasted from a web page may begin with a no-break space."""
    line = line.lstrip()
    if line[:1] < b"\x80":
        return line
    return line.decode("utf-8", "surrogateescape").lstrip(SPACE).encode("utf-8", "surrogateescape")


def _decoded(line: bytes) -> str:
    # Docker keeps stray bytes until it writes JSON, where they become this same character.
    return line.decode("utf-8", "replace")


def _is_not_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False
