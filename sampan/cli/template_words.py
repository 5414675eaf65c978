"""The functions of format templates: Go's built-in ones and those that Docker adds. Pure; errors are ValueError."""

from __future__ import annotations

from sampan.cli import template_structures as structures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def show(value: Any, inside: bool = False) -> str:
    """Return a value as Go's %v prints it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>" if inside else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, dict):
        if (structure := structures.fields(value)) is not None:
            return "{" + " ".join(show(value.get(field, zero), True) for field, zero in structure) + "}"
        pairs = sorted((str(key), item) for key, item in value.items() if not callable(item))
        if pairs and all(item == {} for _, item in pairs):  # the keys are all that ports and volumes have
            return "map[" + " ".join(f"{key}:{{}}" for key, _ in pairs) + "]"
        return "map[" + " ".join(f"{key}:{show(item, True)}" for key, item in pairs) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(show(item, True) for item in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    from sampan.cli.lines import in_json
    from sampan.oci import jsontext

    if isinstance(value, dict):  # a row's methods, as .Label, are no data
        value = {key: item for key, item in value.items() if not callable(item)}
    return in_json(jsontext.dumps(value).decode("utf-8", "surrogateescape"))


def _join(items: Any, separator: str = "") -> str:
    if isinstance(items, str):  # `.X | join ","` reads naturally, and Go would refuse it
        items, separator = separator, items
    if not isinstance(items, (list, tuple)):
        raise ValueError("it joins a list")
    return separator.join(show(item) for item in items)


def _split(text: str, separator: str) -> list[str]:
    return _text(text).split(separator) if separator else list(_text(text))


def _title(text: str) -> str:
    """Return the text with each word's first letter large; what separates words is Go's strings.Title's to say."""
    out, inside = "", False
    for letter in _text(text):
        out += letter if inside else letter.upper()
        inside = letter == "_" or letter.isalnum() or (letter > "\x7f" and not letter.isspace())
    return out


def _truncate(text: str, length: int) -> str:
    return _text(text)[: max(0, length)]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + _text(text) + " " * after if text else ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it takes a text, not {show(value, True)}")
    return value


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if value is None:
        return 0
    if not isinstance(value, (dict, list, tuple)):
        raise ValueError(f"{show(value)} has no length")
    return len(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            return ""
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(key, bool) or not isinstance(key, int):
            raise ValueError(f"a list is indexed by a number, not {show(key)}")
        elif not isinstance(value, (list, tuple, str)):
            raise ValueError(f"{show(value)} cannot be indexed")
        elif not 0 <= key < len(value):
            raise ValueError(f"index {key} is out of range: there are {len(value)}")
        else:
            value = ord(value[key]) if isinstance(value, str) else value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if len(bounds) > 2 or not 0 <= low <= high <= len(value):
        raise ValueError(f"the bounds {show(list(bounds))} do not fit a length of {len(value)}")
    return value[low:high]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("it compares at least two values")
    return any(_same(first, other) for other in others)


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, (dict, list)) or isinstance(b, (dict, list)):
        raise ValueError("lists and maps cannot be compared")
    if _rank(a) != _rank(b):
        raise ValueError(f"{show(a)} and {show(b)} are of different kinds")
    return bool(a == b)


def _rank(value: Any) -> int:
    return 0 if isinstance(value, bool) else 1 if isinstance(value, (int, float)) else 2


def _less(a: Any, b: Any) -> bool:
    if a is None or b is None or _rank(a) != _rank(b) or _rank(a) == 0:
        raise ValueError(f"{show(a, True)} and {show(b, True)} have no order")
    return bool(a < b)


def _print(*values: Any) -> str:
    out = ""
    for i, value in enumerate(values):
        # fmt.Sprint: a space between operands when neither is a string.
        space = i > 0 and not isinstance(value, str) and not isinstance(values[i - 1], str)
        out += (" " if space else "") + show(value, True)
    return out


def _printf(format: str, *values: Any) -> str:
    out, rest, at = [], list(values), 0
    while at < len(format):
        percent = format.find("%", at)
        if percent < 0:
            break
        out.append(format[at:percent])
        end = percent + 1
        while end < len(format) and format[end] in "+-# 0123456789.":
            end += 1
        verb, flags = format[end : end + 1], format[percent + 1 : end]
        at = end + 1
        if verb == "%":
            out.append("%")
        elif not rest:
            raise ValueError(f"there is no value for %{flags}{verb}")
        else:
            out.append(_verb(flags, verb, rest.pop(0)))
    if rest:
        raise ValueError("there are more values than % words")
    return "".join(out) + format[at:]


def headed(args: list[Any]) -> str:
    """Return what printf makes of a column's name; the name itself where a number was meant."""
    try:
        return _printf(*args)
    except (ValueError, TypeError):
        return next((arg for arg in reversed(args) if isinstance(arg, str)), "")


def _verb(flags: str, verb: str, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    width = flags.strip("+-# 0").partition(".")[0]
    if len(width) > 4:
        raise ValueError(f"%{flags}{verb} is too wide")
    if verb in "dxXobeEfgG" and number and verb:
        return _number_verb(flags, verb, value)
    if verb == "q" and isinstance(value, (list, tuple)):
        value = "[" + " ".join(_json(show(item)) for item in value) + "]"
    elif verb == "q":
        value = _json(show(value))
    elif verb == "x" and isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape").hex()
    elif verb not in ("s", "v", "t") or not verb:
        raise ValueError(f"%{flags}{verb} does not fit {show(value, True)}")
    return "%{}s".format(flags.replace("#", "").replace("+", "")) % show(value, True)


def _number_verb(flags: str, verb: str, value: Any) -> str:
    if verb in "dxXob" and not isinstance(value, int):
        raise ValueError(f"%{verb} does not fit {show(value)}")
    if verb == "b":
        value, verb = int(f"{value:b}"), "d"
    return str(f"%{flags}{verb}" % value)


def _html(*values: Any) -> str:
    return _print(*values).translate({ord(letter): f"&{name};" for letter, name in _HTML})


def _query(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values), errors="surrogateescape")


_HTML = (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "#34"), ("'", "#39"))

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": all,  # `and` and `or` stop early: template_apply evaluates them
    "eq": _equal,
    "ge": lambda a, b: not _less(a, b),
    "gt": lambda a, b: _less(b, a),
    "html": _html,
    "index": _index,
    "join": _join,
    "json": _json,
    "le": lambda a, b: not _less(b, a),
    "len": _length,
    "lower": lambda text: _text(text).lower(),
    "lt": _less,
    "ne": lambda a, b: not _equal(a, b),
    "not": lambda value: not value,
    "or": any,
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(show(value, True) for value in values) + "\n",
    "slice": _slice,
    "split": _split,
    "title": _title,
    "truncate": _truncate,
    "upper": lambda text: _text(text).upper(),
    "urlquery": _query,
}

# In the heading of a table these leave a column's name as it is.
TEXT_FUNCTIONS = ("join", "json", "lower", "pad", "slice", "split", "title", "truncate", "upper")
