"""sampan: a container engine that is just a Python package."""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine as Engine
    from sampan.engine.library import Result as Result
    from sampan.errors import SampanError as SampanError

__all__ = ["Engine", "Result", "SampanError", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Engine":
        from sampan.engine.engine import Engine

        return Engine
    if name == "Result":
        from sampan.engine.library import Result

        return Result
    if name == "SampanError":
        from sampan.errors import SampanError

        return SampanError
    raise AttributeError(f"module 'sampan' has no attribute {name!r}")
