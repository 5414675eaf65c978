"""Applies a template that was read to a value: dictionaries, lists and plain values of JSON's shape.

A field that a dictionary lacks is not an error yet: `if`, `with` and `range` take it as empty, because Docker's
structures leave empty fields out. Printing it, or giving it to a function, is an error that names the nearest field.
Keys that start with a lower-case letter are a user's own (labels, networks): lacking ones print `<no value>`, as Go
does. A capitalised field is also found under another capitalisation (.ID and .Id): templates in the wild use both.
"""

from __future__ import annotations

from sampan.cli.template_structures import DURATIONS, duration
from sampan.cli.template_words import FUNCTIONS, TEXT_FUNCTIONS, headed, show
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.template import Node, Template

# Fields that the Engine API leaves out when they are empty ("omitempty").
_OPTIONAL = (
    "Health",
    "Healthcheck",
    "ExposedPorts",
    "Volumes",
    "OnBuild",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "Variant",
    "Init",
    "Sysctls",
    "Tmpfs",
    "StorageOpt",
)

# What Go prints for null and for what is left out: empty lists and maps for fields of these types, nothing for texts,
# and `<nil>` for pointers, which all others are (the Engine API's types in moby/api/types).
_LISTS = frozenset(
    (
        "Aliases",
        "Args",
        "Binds",
        "BlkioDeviceReadBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceWriteIOps",
    )
    + (
        "BlkioWeightDevice",
        "CapAdd",
        "CapDrop",
        "Cmd",
        "DNSNames",
        "DeviceCgroupRules",
        "DeviceRequests",
        "Devices",
        "Dns",
    )
    + (
        "DnsOptions",
        "DnsSearch",
        "Entrypoint",
        "Env",
        "ExecIDs",
        "ExtraHosts",
        "GroupAdd",
        "Layers",
        "Links",
        "MaskedPaths",
    )
    + (
        "Mounts",
        "OnBuild",
        "ReadonlyPaths",
        "RepoDigests",
        "RepoTags",
        "SecondaryIPAddresses",
        "SecondaryIPv6Addresses",
    )
    + ("SecurityOpt", "Shell", "Ulimits", "VolumesFrom")
)
_MAPS = frozenset(
    ("Annotations", "Data", "DriverOpts", "ExposedPorts", "Labels", "Options", "PortBindings", "Ports", "StorageOpt")
    + ("Sysctls", "Tmpfs", "Volumes")
)
_TEXTS = frozenset(("StopSignal", "Variant"))


class Missing:
    """A field that is not there, and the keys that are."""

    __slots__ = ("keys", "name", "optional")

    def __init__(self, name: str, keys: list[str]) -> None:
        self.name = name
        self.keys = keys
        self.optional = not name[:1].isupper() or name.rpartition(".")[2] in _OPTIONAL

    def __bool__(self) -> bool:
        return False


class _Break(Exception):
    """{{break}}"""


class _Continue(Exception):
    """{{continue}}"""


def apply(template: Template, data: Any, headings: bool = False) -> str:
    """Return the text that a template makes of a value; with `headings`, of the names of columns."""
    run = _Run(template, data, headings)
    try:
        run.nodes(template.nodes, data)
    except RecursionError:
        raise InvalidArgument("format template: it is nested too deeply") from None
    return "".join(run.out)


class _Run:
    def __init__(self, template: Template, data: Any, headings: bool) -> None:
        self.template = template
        self.headings = headings
        self.out: list[str] = []
        self.variables: list[tuple[str, Any]] = [("$", data)]

    def nodes(self, nodes: list[Node], dot: Any) -> None:
        depth = len(self.variables)
        for node in nodes:
            if node.kind == "text":
                self.out.append(node.value)
            elif node.kind == "pipe":
                value = self._pipe(node, dot)
                if not node.variables:
                    shown = self._present(node, value)
                    self.out.append(_nil(node, value) if shown is None else show(_typed(node, shown)))
            elif node.kind == "range":
                self._range(node, dot)
            elif node.kind == "template":
                self._named(node, dot)
            elif node.kind in ("break", "continue"):
                raise _Break if node.kind == "break" else _Continue
            else:
                self._branch(node, dot)
        del self.variables[depth:]

    def _named(self, node: Node, dot: Any) -> None:
        """Apply a named template to the value it is given, with no variables but $."""
        body = self.template.named.get(node.value)
        if body is None:
            raise self.template.error(node.at, f"no template {node.value!r} is defined")
        value = self._pipe(node.pipe, dot) if node.pipe is not None else Missing("", [])
        variables, self.variables = self.variables, [("$", value)]
        self.nodes(body, value)
        self.variables = variables

    def _branch(self, node: Node, dot: Any) -> None:
        depth = len(self.variables)
        assert node.pipe is not None
        value = self._pipe(node.pipe, dot)
        if value:
            self.nodes(node.body, value if node.kind == "with" else dot)
        else:
            self.nodes(node.other, dot)
        del self.variables[depth:]

    def _range(self, node: Node, dot: Any) -> None:
        assert node.pipe is not None
        depth = len(self.variables)
        names = node.pipe.variables
        pairs = list(self._pairs(node, self._pipe(node.pipe, dot, declare=False)))
        for key, value in pairs:
            if names:
                self._set(names[-1], value, node.pipe.assign)
            if len(names) == 2:
                self._set(names[0], key, node.pipe.assign)
            try:
                self.nodes(node.body, value)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                del self.variables[depth:]
        if not pairs:
            self.nodes(node.other, dot)

    def _pairs(self, node: Node, value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict):
            return iter(sorted(value.items(), key=lambda item: str(item[0])))
        if isinstance(value, (list, tuple)):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return iter((i, i) for i in range(value))
        if value is None or isinstance(value, Missing):
            return iter(())
        if self.headings:
            return iter([(0, value)])
        raise self.template.error(node.at, f"range cannot walk over {_kind(value)}")

    def _set(self, name: str, value: Any, assign: bool) -> None:
        if not assign:
            self.variables.append((name, value))
            return
        for i in range(len(self.variables) - 1, -1, -1):
            if self.variables[i][0] == name:
                self.variables[i] = (name, value)
                return

    def _pipe(self, node: Node, dot: Any, declare: bool = True) -> Any:
        value: Any = None
        for i, command in enumerate(node.parts):
            value = self._command(command, dot, [] if i == 0 else [value])
        if declare and node.variables:
            if node.assign:
                self._variable(node, node.variables[0])
            self._set(node.variables[0], value, node.assign)
        return value

    def _command(self, operands: list[Node], dot: Any, piped: list[Any]) -> Any:
        first, rest = operands[0], operands[1:]
        if first.kind == "word":
            return self._call(first, rest, dot, piped)
        value = self._operand(first, dot)
        if callable(value):
            return self._guard(first, value, [self._operand(node, dot) for node in rest] + piped)
        if self.headings and isinstance(value, str):
            return value
        if rest or piped:
            raise self.template.error(first.at, "only a function takes arguments")
        return value

    def _call(self, node: Node, rest: list[Node], dot: Any, piped: list[Any]) -> Any:
        if node.value in ("and", "or"):
            return self._logic(node, rest, dot, piped)
        args = [self._operand(operand, dot) for operand in rest] + piped
        if self.headings and node.value in TEXT_FUNCTIONS:
            return next((arg for arg in args if isinstance(arg, str)), "")
        if self.headings and node.value == "printf":
            return headed(args)
        if node.value != "not":
            args = [self._present(node, arg) for arg in args]
        return self._guard(node, FUNCTIONS[node.value], args)

    def _guard(self, node: Node, function: Any, args: list[Any]) -> Any:
        try:
            return function(*args)
        except (ValueError, TypeError, LookupError) as exc:
            why = "wrong number or kind of arguments" if isinstance(exc, TypeError) else str(exc)
            raise self.template.error(node.at, f"{node.value or 'this field'}: {why}") from None

    def _logic(self, node: Node, rest: list[Node], dot: Any, piped: list[Any]) -> Any:
        value: Any = None
        if not rest and not piped:
            raise self.template.error(node.at, f"{node.value} needs an argument")
        for operand in rest:
            value = self._operand(operand, dot)
            if bool(value) == (node.value == "or"):
                return value
        return piped[0] if piped else value

    def _operand(self, node: Node, dot: Any) -> Any:
        if node.kind == "word":
            return self._call(node, [], dot, [])
        if node.kind == "group":
            assert node.pipe is not None
            value = self._pipe(node.pipe, dot)
        elif node.kind == "literal":
            value = node.value
        else:
            value = dot if node.value == "." else self._variable(node, node.value)
        for name in node.names:
            value = self._field(node, value, name)
        return value

    def _variable(self, node: Node, name: str) -> Any:
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise self.template.error(node.at, f"there is no variable {name}")

    def _field(self, node: Node, value: Any, name: str) -> Any:
        if isinstance(value, Missing):
            return Missing(f"{value.name}.{name}", value.keys)
        if self.headings and isinstance(value, str):
            return name.upper()
        if value is None:
            raise self.template.error(node.at, f"there is no .{name} in nothing (the value before it is null)")
        if not isinstance(value, dict):
            raise self.template.error(node.at, f"there is no .{name} in {_kind(value)}")
        if name in value:
            return value[name]
        if name[:1].isupper():
            same = [key for key in value if isinstance(key, str) and key.lower() == name.lower()]
            if len(same) == 1:
                return value[same[0]]
        return name.upper() if self.headings else Missing(name, [str(key) for key in value])

    def _present(self, node: Node, value: Any) -> Any:
        if not isinstance(value, Missing):
            return value
        if value.optional:
            return None
        from sampan.nearest import nearest

        guess = nearest(value.name, value.keys)
        hint = f"did you mean .{guess}?" if guess else "{{json .}} shows every field"
        raise self.template.error(node.at, f"there is no field .{value.name}", hint)


def _nil(node: Node, value: Any) -> str:
    """Return what Go prints for a pipe that comes to nothing: it depends on the type, which the field's name tells."""
    if isinstance(value, Missing) and not value.name[:1].isupper():
        return "<no value>"
    name = _lone(node)
    if name in _TEXTS:
        return ""
    return "[]" if name in _LISTS else "map[]" if name in _MAPS else "<nil>"


def _typed(node: Node, value: Any) -> Any:
    """Return a health check's times as Go prints a Duration; they are numbers for all other purposes."""
    if _lone(node) in DURATIONS and isinstance(value, int) and not isinstance(value, bool):
        return duration(value)
    return value


def _lone(node: Node) -> str:
    """Return the last name of a pipe that is one field, or ""."""
    lone = node.parts[0][0] if len(node.parts) == 1 and len(node.parts[0]) == 1 else None
    return lone.names[-1] if lone is not None and lone.names else ""


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "a map", type(None): "nothing"}
    return kinds.get(type(value), "this value")
