"""JSON text to plain values and back, without importing `json` (8 ms with its `re`) on the run path.

The work is done by the C scanner and encoder that `json` itself uses; an interpreter without them falls back on `json`.
Stricter than `json` where input is hostile (RFC 8259): UTF-8 only, no byte order mark, no NaN or Infinity in either
direction, no number that overflows a double, and too deep a document is an error of its author, not a RecursionError.
A repeated key is tolerated, the last one counts, as in every other engine.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Scan = Callable[[str, int], "tuple[Any, int]"]
    Encode = Callable[[Any, int], Any]

_WHITESPACE = " \t\n\r"


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidArgument(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (_INFINITY, -_INFINITY):
        raise InvalidArgument(f"the number {text[:40]} is out of range")
    return value


_INFINITY = float("inf")


class _Options:
    """What the C scanner reads from its context."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}


def _refuse_type(value: object) -> NoReturn:
    raise InvalidArgument(f"cannot write JSON: a {type(value).__name__} has no JSON form")


def _from_c() -> tuple[Scan, Callable[[Any, bool], Encode]]:
    import _json

    def encoder(quote: Any, sort_keys: bool) -> Encode:
        # Positional only, the same in 3.11 to 3.14: markers, default, quote, indent, separators, sort, skip, NaN.
        made: Encode = _json.make_encoder(None, _refuse_type, quote, None, ":", ",", sort_keys, False, False)
        return made

    context: Any = _Options
    scan: Scan = _json.make_scanner(context)
    return scan, encoder


def _from_json() -> tuple[Scan, Callable[[Any, bool], Encode]]:
    import json

    decoder: Any = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)

    def encoder(quote: Any, sort_keys: bool) -> Encode:
        made = json.JSONEncoder(
            ensure_ascii=quote is _quote_ascii,
            check_circular=False,
            allow_nan=False,
            sort_keys=sort_keys,
            separators=(",", ":"),
            default=_refuse_type,
        )
        return lambda value, level: made.iterencode(value)

    return decoder.scan_once, encoder


try:
    from _json import encode_basestring as _quote
    from _json import encode_basestring_ascii as _quote_ascii

    _scan, _encoder = _from_c()
except (ImportError, AttributeError, TypeError):
    from json.encoder import encode_basestring as _quote
    from json.encoder import encode_basestring_ascii as _quote_ascii

    _scan, _encoder = _from_json()

_encode = {(ascii_only, sort): _encoder(_quote_ascii if ascii_only else _quote, sort)
           for ascii_only in (False, True) for sort in (False, True)}  # fmt: skip


def loads(data: bytes | str, what: str = "JSON") -> Any:
    """Return the value of one JSON document; `what` names it in errors (InvalidArgument)."""
    text = _text(data, what).strip(_WHITESPACE)
    try:
        value, end = _scan(text, 0)
    except RecursionError as exc:
        raise InvalidArgument(f"cannot read {what}: it is nested too deeply") from exc
    except (StopIteration, ValueError, SystemError) as exc:
        # Without json.decoder loaded the scanner of 3.11 cannot find JSONDecodeError and fails with a bare SystemError.
        raise InvalidArgument(f"cannot read {what}: {_reason(text)}") from exc
    except InvalidArgument as exc:
        raise InvalidArgument(f"cannot read {what}: {exc.message}") from exc
    if end != len(text):
        raise InvalidArgument(f"cannot read {what}: more text after the end of the document, at character {end}")
    return value


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Return `value` as compact UTF-8 JSON; raise InvalidArgument for what JSON cannot express."""
    try:
        text = "".join(_encode[False, sort_keys](value, 0))
        try:
            return text.encode()
        except UnicodeEncodeError:
            # Lone surrogates stand for bytes of the host that are not UTF-8 (PEP 383): loads() restores their escapes.
            return "".join(_encode[True, sort_keys](value, 0)).encode()
    except RecursionError as exc:
        raise InvalidArgument("cannot write JSON: the value is nested too deeply or contains itself") from exc
    except (ValueError, TypeError) as exc:
        raise InvalidArgument(f"cannot write JSON: {exc}") from exc


def _text(data: bytes | str, what: str) -> str:
    if isinstance(data, str):
        return data
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"cannot read {what}: byte {exc.start} is not UTF-8") from exc


def _reason(text: str) -> str:
    """Ask `json` (cold path) what is wrong with `text`."""
    import json

    try:
        json.loads(text)
    except json.JSONDecodeError as exc:
        return f"{exc.msg} at line {exc.lineno} column {exc.colno}"
    except ValueError as exc:
        return str(exc)
    return "it is not a JSON document"
