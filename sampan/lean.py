"""Writes the bundle (bundle.py): code without what only people and type checkers read.

That is docstrings, annotations and imports for types. Statements keep their lines, so errors show their source as ever.
Of this package only: none of its modules reads its own documentation or annotations, and every one has `from __future__
import annotations`.
"""

from __future__ import annotations

import ast
import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

_FUTURE_ANNOTATIONS = 0x1000000  # Include/cpython/compile.h: CO_FUTURE_ANNOTATIONS


def write(path: str, magic: bytes, parts: Sequence[tuple[str, tuple[int, int, int, int, bool], bytes]]) -> None:
    """Replace a bundle by one of these modules: name, entry of the index, code; raise OSError."""
    index, offset = {}, 0
    for name, entry, data in parts:
        index[name] = (offset, len(data), *entry[2:])
        offset += len(data)
    head = marshal.dumps(index)
    data = b"".join([magic, len(head).to_bytes(8, "little"), head, *(part[2] for part in parts)])
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)  # marshal trusts what it reads
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def code(path: str) -> bytes:
    """Give the code of a module as marshal writes it; raise SyntaxError, OSError."""
    with open(path, "rb") as file:
        return marshal.dumps(compiled(file.read(), path))


def compiled(source: bytes, path: str) -> CodeType:
    """Compile the source of a module; raise SyntaxError."""
    tree = _Lean().visit(ast.parse(source, path))
    code: CodeType = compile(tree, path, "exec", flags=_FUTURE_ANNOTATIONS, dont_inherit=True)
    return code


class _Lean(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._undocumented(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._undocumented(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._undocumented(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value, lineno=node.lineno), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse:
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def _undocumented(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
        return self.generic_visit(node)
