"""Code without what only people and type checkers read: docstrings, annotations, imports for types. For the bundle.

Statements keep their lines, so errors show their source as ever. Of this package only: none of its modules reads its
own documentation or annotations, and every one has `from __future__ import annotations`.
"""

from __future__ import annotations

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

_FUTURE_ANNOTATIONS = 0x1000000  # Include/cpython/compile.h: CO_FUTURE_ANNOTATIONS


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
