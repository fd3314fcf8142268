"""
How pydoctor reads annotations: of C{Annotated[...]} only the type, as the rest may be any text.

It takes every text in an annotation for a type that is not defined yet, and knows C{Literal} as the
only exception.
"""

import ast

from pydoctor import astutils, model
from typing_extensions import override


class _AnnotationStringParser(astutils._AnnotationStringParser):
    @override
    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        is_annotated = isinstance(node.value, ast.Name) and node.value.id == "Annotated"
        if is_annotated and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])
        return super().visit_Subscript(node)


astutils._AnnotationStringParser = _AnnotationStringParser


class System(model.System):
    """The system that C{pyproject.toml} names."""
