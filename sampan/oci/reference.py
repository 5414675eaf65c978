"""Image references: Docker's grammar and its short forms.

    reference       = name [ ":" tag ] [ "@" digest ]
    name            = [ domain "/" ] path
    domain          = ( domain-name | IPv4 | "[" IPv6 "]" ) [ ":" digits ]
    domain-name     = component *( "." component )        component: letters, digits, inner "-"
    path            = path-component *( "/" path-component )
    path-component  = alnum *( separator alnum )           alnum: a-z 0-9; separator: "." "_" "__" or any number of "-"
    tag             = word *127( word | "." | "-" )        word: letters, digits, "_"

A first component is a domain only if it has a "." or ":", has capitals, or is "localhost". Otherwise the domain is
docker.io, where a path of one component means library/<path>. Without tag and digest, the tag "latest" is meant.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_MAX_PATH = 255
_MAX_TAG = 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset("0123456789")
_LETTERS = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _LETTERS | _DIGITS | {"_"}
_TAG = _WORD | {".", "-"}
_LOWER_ALNUM = _LOWER | _DIGITS
_IPV6 = _DIGITS | frozenset("abcdefABCDEF:")
_HEX = frozenset("0123456789abcdef")


class Reference:
    """One image name: `domain`, `path`, `tag` and `digest` (either of these may be ""). Equal if all four are."""

    __slots__ = ("domain", "path", "tag", "digest")

    def __init__(self, domain: str, path: str, tag: str = "", digest: str = "") -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """The repository: domain and path."""
        return f"{self.domain}/{self.path}"

    def familiar_name(self) -> str:
        """Return the repository as a user would type it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        first, _, rest = self.path.partition("/")
        return rest if first == "library" and rest and "/" not in rest else self.path

    def familiar(self) -> str:
        """Return the reference as a user would type it, with its tag and digest."""
        return self.familiar_name() + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository under another tag."""
        if not is_tag(tag):
            raise InvalidArgument(f"invalid tag {tag[:200]!r}: {_TAG_RULE}")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Reference:
        """Return the same repository at a digest, without a tag."""
        return Reference(self.domain, self.path, "", digests.validate(digest))

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


_TAG_RULE = "a tag has at most 128 letters, digits, '_', '.' and '-', and begins with none of the last two"


def parse(text: str, *, default_tag: bool = True) -> Reference:
    """Return the reference that `text` means; raise InvalidArgument.

    Without tag and digest the tag is "latest", or "" if `default_tag` is false.
    """
    if not text:
        _refuse(text, "it is empty")
    if len(text) == 64 and _HEX.issuperset(text):
        _refuse(text, "64 hexadecimal digits are an image id, not a name")
    rest, at, digest = text.partition("@")
    domain, remainder = _split_domain(rest)
    path, colon, tag = remainder.partition(":")
    _check_path(text, path)
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = "library/" + path
    if len(path) > _MAX_PATH:
        _refuse(text, f"the repository name has more than {_MAX_PATH} characters")
    if not _is_domain(domain):
        _refuse(text, f"{domain!r} is not a host name with an optional port")
    if colon and not is_tag(tag):
        _refuse(text, _TAG_RULE)
    if at:
        digests.validate(digest)
    elif not tag and default_tag:
        tag = DEFAULT_TAG
    return Reference(domain, path, tag, digest)


def new_name(text: str) -> str:
    """Return the full name with its tag that an image is to be given; raise InvalidArgument, also for a digest."""
    parsed = parse(text)
    if parsed.digest:
        raise InvalidArgument(f"cannot name an image {text}: a name with a digest cannot be given")
    return str(parsed)


def is_tag(text: str) -> bool:
    """Tell whether `text` is a tag by the grammar."""
    return 0 < len(text) <= _MAX_TAG and text[0] in _WORD and _TAG.issuperset(text)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        return DEFAULT_DOMAIN, text
    return (DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first), rest


def _is_domain(text: str) -> bool:
    host, colon, port = text, "", ""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        colon, port = rest[:1], rest[1:]
        good = bool(bracket) and len(host) > 1 and _IPV6.issuperset(host[1:]) and colon in ("", ":")
    else:
        host, colon, port = text.partition(":")
        good = all(_is_domain_component(component) for component in host.split("."))
    return good and (not colon or (port != "" and _DIGITS.issuperset(port)))


def _is_domain_component(text: str) -> bool:
    allowed = _LETTERS | _DIGITS
    return bool(text) and text[0] in allowed and text[-1] in allowed and (allowed | {"-"}).issuperset(text)


def _check_path(text: str, path: str) -> None:
    if path != path.lower():
        _refuse(text, "a repository name must be lower case")
    for component in path.split("/"):
        if not _is_path_component(component):
            what = (
                f"{component[:100]!r} is not a valid part of a repository name"
                if component
                else "a part of it is empty"
            )
            _refuse(text, what)


def _is_path_component(text: str) -> bool:
    separator = ""
    previous = ""
    for character in text:
        if character in _LOWER_ALNUM:
            if separator not in ("", ".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
        elif character in "._-" and previous:
            separator += character
        else:
            return False
        previous = character
    return bool(previous) and not separator


def _refuse(text: str, why: str) -> NoReturn:
    raise InvalidArgument(f"invalid reference {text[:300]!r}: {why}")
