"""The `--change` of import and commit: Dockerfile instructions that set an image's configuration."""

from __future__ import annotations

from sampan.build import metadata
from sampan.dockerfile import commands, instructions, lexer
from sampan.dockerfile.expand import expand
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def config_of(changes: Iterable[str], start: dict[str, Any] | None = None) -> dict[str, Any]:
    """Apply instructions to a run configuration and give the new one; InvalidArgument for any that needs a build."""
    state = metadata.State()
    state.config = dict(start or {})
    for text in changes:
        for node in lexer.parse(text.encode("utf-8", "surrogateescape"), "--change").nodes:
            _apply(state, instructions.instruction(node), text)
    return state.config


def _apply(state: metadata.State, step: commands.Instruction, text: str) -> None:
    def expanded(word: str) -> str:
        return expand(word, state.scope())

    try:
        if isinstance(step, commands.Workdir):
            state.config["WorkingDir"] = state.workdir(expanded(step.path))
        elif metadata.changes_metadata_only(step):
            metadata.apply(state, step, expanded)
        else:
            raise ValueError("it needs a build")
    except ValueError as exc:
        raise InvalidArgument(f"cannot apply change {text!r}: {exc}") from exc
