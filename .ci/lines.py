"""Lines of Python in each subpackage that are neither blank, comment nor docstring.

python .ci/lines.py [convnet]
"""

import ast
import collections
import io
import sys
import tokenize
from pathlib import Path

_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def count(text: str) -> int:
    """The lines of code in a source."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*_LAYOUT, tokenize.ENDMARKER):
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            code -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(code)


def main(root: Path) -> None:
    """Prints a line for each subpackage, and the sum."""
    found: collections.Counter[str] = collections.Counter()
    for path in root.rglob("*.py"):
        found[path.relative_to(root).parts[0]] += count(path.read_text())
    for name, lines in sorted(found.items()):
        print(f"{lines:7,}  {name}")
    print(f"{found.total():7,}  {root.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "convnet"))
