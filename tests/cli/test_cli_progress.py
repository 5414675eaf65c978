"""Build progress: the same events as plain lines, as a live view and as JSON; output of steps is hostile."""

from __future__ import annotations

import io
import json

import pytest

from sampan.build.progress import Event
from sampan.cli import progress

EVENTS = [
    Event("step", "FROM debian", number=1, total=3),
    Event("cached", "FROM debian", number=1, total=3),
    Event("step", "RUN make  \n all", stage="build", number=2, total=3),
    Event("output", stage="build", number=2, total=3, stream=1, data=b"compi"),
    Event("output", stage="build", number=2, total=3, stream=1, data=b"ling\nnext\npart"),
    Event("output", stage="build", number=2, total=3, stream=2, data=b"10%\r50%\r100%\n"),
    Event("output", stage="build", number=2, total=3, stream=2, data=b"\x1b[31mred\x1b[0m \x1b]0;title\x07\xff\n"),
    Event("done", stage="build", number=2, total=3, size=5),
    Event("warning", "careful\x1b[2J"),
    Event("image", "sha256:abc"),
    Event("tagged", "docker.io/library/app:latest"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(kind: str, stream: io.StringIO, failed: bool = False, events: list[Event] = EVENTS) -> str:
    show = progress.renderer(kind, stream)
    for event in events:
        show(event)
    show.close(failed)
    return stream.getvalue()


def without_times(text: str) -> str:
    words = (line.split(" ") for line in text.splitlines())
    return "\n".join(" ".join("T" if "." in w and w.rstrip("s")[:1].isdigit() else w for w in line) for line in words)


def test_plain_lines() -> None:
    assert without_times(shown("plain", io.StringIO())) == "\n".join(
        [
            "#1 [1/3] FROM debian",
            "#1 CACHED",
            "",
            "#2 [build 2/3] RUN make all",
            "#2 T compiling",
            "#2 T next",
            "#2 T 100%",
            "#2 T red \\x1b]0;title\\x07\ufffd",
            "#2 T part",
            "#2 DONE T",
            "",
            "warning: careful\\x1b[2J",
            "image sha256:abc",
            "named docker.io/library/app:latest",
        ]
    )


def test_plain_shows_the_last_words_of_a_failed_step() -> None:
    text = shown("plain", io.StringIO(), failed=True, events=EVENTS[2:5])
    assert text.rstrip().endswith("part")


def test_live_view_leaves_one_line_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = rendered(shown("tty", Terminal()))
    assert [line.partition("  ")[0] for line in screen] == [
        "=> [1/3] FROM debian",
        "=> [build 2/3] RUN make all",
        "warning: careful\\x1b[2J",
        "image sha256:abc",
        "named docker.io/library/app:latest",
    ]


def test_live_view_of_a_failed_step_leaves_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = rendered(shown("tty", Terminal(), failed=True, events=EVENTS[2:7]))
    assert screen == [
        "=> [build 2/3] RUN make all",
        *("   " + x for x in ("compiling", "next", "100%")),
        screen[4],
        "   part",
    ]
    assert "red" in screen[4]


def rendered(text: str) -> list[str]:
    """Play the two sequences that the live view uses on a screen; any other escape would stay and fail the test."""
    screen: list[str] = [""]
    while text:
        if text.startswith("\x1b["):
            end = next(i for i, letter in enumerate(text[2:], 2) if letter.isalpha())
            if text[end] == "A":
                assert not screen[-1], (
                    "the cursor goes up in its column: only from the first one is it the line's begin"
                )
                screen = [*screen[: len(screen) - 1 - int(text[2:end])], ""]
            text = text[end + 1 :]
        elif text[0] == "\r":
            screen[-1] = ""
            text = text[1:]
        elif text[0] == "\n":
            screen.append("")
            text = text[1:]
        else:
            screen[-1] += text[0]
            text = text[1:]
    assert not any("\x1b" in line for line in screen)
    return screen[:-1]


def test_json_is_one_object_per_event() -> None:
    objects = [json.loads(line) for line in shown("rawjson", io.StringIO()).splitlines()]
    assert [item["kind"] for item in objects] == [event.kind for event in EVENTS]
    assert objects[4]["data"] == "ling\nnext\npart"
    assert (objects[2]["stage"], objects[2]["step"], objects[2]["total"]) == ("build", 2, 3)


def test_quiet_shows_warnings_only() -> None:
    assert shown("quiet", io.StringIO()) == "sampan: warning: careful\\x1b[2J\n"


def test_an_echoed_interrupt_leaves_nothing_behind() -> None:
    stream = Terminal()
    show = progress.renderer("tty", stream)
    show(EVENTS[2])
    stream.write("^C")  # what the terminal itself writes
    show.close(True)
    assert rendered(stream.getvalue()) == ["=> [build 2/3] RUN make all"]


def test_quiet_shows_what_a_failed_step_printed() -> None:
    assert shown("quiet", io.StringIO(), True, EVENTS[:5]) == "compiling\nnext\npart\n"
    assert shown("quiet", io.StringIO(), False, EVENTS[:5]) == ""


def test_auto_follows_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(progress.renderer("auto", io.StringIO())) is progress.Plain
    assert type(progress.renderer("auto", Terminal())) is progress.Live
    monkeypatch.setenv("TERM", "dumb")
    assert type(progress.renderer("auto", Terminal())) is progress.Plain


def test_json_of_a_transfer_tells_its_failure_too() -> None:
    from sampan.cli import transfers
    from sampan.errors import NotFound
    from sampan.transfer import events

    stream = io.StringIO()
    with pytest.raises(NotFound), transfers.display("json", stream=stream) as show:
        show(events.Event(events.TEXT, text="1: Pulling from a/b"))
        raise NotFound("cannot pull a/b:1", "check the spelling")
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert said == [
        {"status": "1: Pulling from a/b"},
        {"errorDetail": {"message": "cannot pull a/b:1", "hint": "check the spelling"}, "error": "cannot pull a/b:1"},
    ]
