"""An engine that only records what it is asked, and commands on it."""

from __future__ import annotations

from typing import Any

from sampan.cli import main, options


class Part:
    """Record every call, and answer as told."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *args, kwargs) if kwargs else (name, *args))
            answer = self.answers.get(name)
            answer = answer(*args, **kwargs) if callable(answer) else answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


class Engine(Part):
    def __init__(self, containers: Part | None = None, images: Part | None = None, **answers: Any) -> None:
        super().__init__(**answers)
        self.containers = containers or Part()
        self.images = images or Part()


def run(engine: Any, *words: str) -> int:
    module = main.load_command(words[0])
    code: int = module.run(engine, options.parse(words[1:], module.OPTIONS))
    return code
