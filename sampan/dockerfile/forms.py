"""The shapes that the rest of an instruction line may have: JSON list, fields, quoted words, pairs and flags.

Everything stays unexpanded here: quotes and escapes are kept in words, as BuildKit's parser keeps them for its later
expansion. Faults are ValueError with the reason; the caller knows the line.
"""

from __future__ import annotations

from _json import scanstring

from sampan.dockerfile.located import SPACE, shown

_BLANKS = "\t\v\f\r "
_TO_SPACE = str.maketrans("\t\v\f\r", "    ")
_ALL_TO_SPACE = str.maketrans(dict.fromkeys(SPACE, " "))


def json_array(text: str) -> list[str] | None:
    """Return the strings of a JSON array, or None when text is not one: Docker then takes the shell form."""
    if not text.startswith("["):
        return None
    found = _strings(text)
    if found is None:
        _refuse_if_json(text)
    return found if found is None else _checked(found)


def _strings(text: str) -> list[str] | None:
    """Read a JSON array of nothing but strings, or return None."""
    found: list[str] = []
    at = _skip(text, 1)
    try:
        if text[at] == "]":
            return found if _skip(text, at + 1) == len(text) else None
        while text[at] == '"':
            word, at = scanstring(text, at + 1, True)
            found.append(word)
            at = _skip(text, at)
            if text[at] == "]":
                return found if _skip(text, at + 1) == len(text) else None
            if text[at] != ",":
                return None
            at = _skip(text, at + 1)
    except (ValueError, IndexError, SystemError):  # malformed, or it ends too soon (SystemError: oci/jsontext.py)
        return None
    return None


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _checked(words: list[str]) -> list[str]:
    for index, word in enumerate(words):
        if "\0" in word:
            raise ValueError("a string of the JSON array has a NUL character, which no argument can hold")
        if not word.isascii():
            # A lone surrogate from an escape cannot be encoded; Go's decoder replaces it.
            words[index] = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in word)
    return words


def _refuse_if_json(text: str) -> None:
    """Raise if text is a JSON array of other things than strings; return None (shell form) if it is no JSON."""
    import json

    try:
        json.loads(text, parse_constant=int)
    except (ValueError, RecursionError):
        return
    raise ValueError("when using JSON array syntax, arrays must be comprised of strings only")


def first_word(text: str) -> tuple[str, str]:
    """Split text at its first run of blanks."""
    for at, c in enumerate(text):
        if c in _BLANKS:
            return text[:at], text[at:].lstrip(_BLANKS)
    return text, ""


def fields(text: str) -> list[str]:
    """Split at blanks, whatever the quotes: as Docker splits the words of ADD, COPY, EXPOSE, FROM and VOLUME."""
    return [word for word in text.translate(_TO_SPACE).split(" ") if word]


def fields_or_json(text: str) -> list[str]:
    """Return a JSON array's strings, or else the fields of text."""
    array = json_array(text)
    return fields(text) if array is None else array


def words(text: str, escape: str) -> list[str]:
    """Split at white space outside quotes and escapes, both of which stay in the words."""
    return split_words(text, escape)[0]


def split_words(text: str, escape: str) -> tuple[list[str], bool]:
    """Return the words of text and whether its last quote is closed."""
    if "'" not in text and '"' not in text and escape not in text:
        return [word for word in text.translate(_ALL_TO_SPACE).split(" ") if word], True
    found: list[str] = []
    word: list[str] = []
    quote = ""
    at, end = 0, len(text)
    while at < end:
        c = text[at]
        at += 1
        if not quote and c in SPACE:
            if word:
                found.append("".join(word))
                word = []
            continue
        if c == escape and quote != "'":
            if at < end:  # an escape that ends the text is dropped
                word.append(c + text[at])
                at += 1
            continue
        if c == quote:
            quote = ""
        elif not quote and c in "'\"":
            quote = c
        word.append(c)
    if word:
        found.append("".join(word))
    return found, not quote


def pairs(text: str, keyword: str, escape: str) -> list[tuple[str, str]]:
    """Read `name=value …` or the old `name value`, as ENV and LABEL have them."""
    found = words(text, escape)
    if not found:
        raise ValueError(f"{keyword} requires at least one argument")
    if "=" not in found[0]:
        name, value = first_word(text)
        if not value:
            raise ValueError(f"{keyword} must have two arguments")
        return [(name, value)]
    return [_pair(word, keyword) for word in found]


def _pair(word: str, keyword: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ValueError(f"{keyword} has {shown(word)} where it needs name=value")
    if not name:
        raise ValueError(f"{keyword} names can not be blank")
    return name, value


def leading_flags(text: str) -> tuple[list[str], str]:
    """Take the `--words` that begin text, quotes and backslashes removed; return them and what follows."""
    flags: list[str] = []
    text = text.lstrip(SPACE)
    while text.startswith("--"):
        flag, text = _flag(text)
        text = text.lstrip(SPACE)
        if flag == "--":
            break
        flags.append(flag)
    return flags, text


def _flag(text: str) -> tuple[str, str]:
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        c = text[at]
        at += 1
        if not quote and c in SPACE:
            return "".join(word), text[at:]
        if c == "\\":  # always the backslash, whatever the escape directive says
            word.append(text[at : at + 1])
            at += 1
        elif c == quote:
            quote = ""
        elif not quote and c in "'\"":
            quote = c
        else:
            word.append(c)
    return "".join(word), ""
