"""Commands that do one thing to each of several names: all are tried, and the exit code says whether any failed."""

from __future__ import annotations

from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FAILED = 1  # as Docker's stop, rm, kill and others
_AT_ONCE = 32


def each(names: Iterable[str], operation: Callable[[str], str | Iterable[str] | None]) -> int:
    """Do it to every name, print what it returns (or the name); print errors and go on."""
    from sampan.cli import lines

    code = 0
    for name in names:
        try:
            said = operation(name)
        except SampanError as exc:
            from sampan.cli import failure

            code = FAILED
            failure.complain(exc)
            continue
        for text in [name] if said is None else [said] if isinstance(said, str) else said:
            lines.line(text)
    return code


def side_by_side(names: list[str], operation: Callable[[str], None]) -> int:
    """Do it to all names at once, for what mostly waits; print names and errors in the order given."""
    if len(names) < 2:
        return each(names, operation)
    import threading

    outcomes: dict[int, BaseException | None] = {}
    todo = list(enumerate(names))

    def work() -> None:
        while todo:
            try:
                number, name = todo.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                operation(name)
                outcomes[number] = None
            except BaseException as exc:
                outcomes[number] = exc

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_AT_ONCE, len(names)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def told(name: str) -> None:
        failed = outcomes.pop(min(outcomes))
        if failed is not None:
            raise failed

    return each(names, told)


def parse_filters(words: Iterable[str]) -> dict[str, list[str]]:
    """Split `--filter key=value` words into the lists that the engine takes; an empty word asks for nothing."""
    filters: dict[str, list[str]] = {}
    for word in filter(None, words):
        key, _, value = word.partition("=")
        filters.setdefault(key.strip().lower(), []).append(value.strip())
    return filters
