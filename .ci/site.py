"""Checks of the built site: it loads nothing from elsewhere and describes every public name.

python .ci/site.py SITE
"""

from __future__ import annotations

import ast
import html.parser
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "convnet"
# Packages whose `__all__` is public.
PUBLIC = (".", "data", "layers", "models", "ops")
_LOADED = {"src", "srcset", "poster", "data"}  # attributes whose resources a browser loads
_LOADING_LINKS = {"stylesheet", "preload", "modulepreload", "icon", "preconnect", "dns-prefetch"}
_ELSEWHERE = re.compile(r"^\s*(https?:)?//")
_CSS = re.compile(r"(?:url\(\s*|@import\s+)['\"]?((?:https?:)?//[^'\")\s]*)")


class _Page(html.parser.HTMLParser):
    """Notes what a page loads from elsewhere, styles within it included."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        loaded = [value for name, value in given.items() if name in _LOADED]
        if tag == "link" and _LOADING_LINKS & set(given.get("rel", "").split()):
            loaded.append(given.get("href", ""))
        self.found += [value for value in loaded if _ELSEWHERE.match(value)]
        self.found += _CSS.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found += _CSS.findall(data)


def elsewhere(site: Path) -> Iterator[str]:
    """What the pages and style sheets load from other sites, with the file that does."""
    for path in sorted(site.rglob("*.html")):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(site)} loads {found}" for found in page.found)
    for path in sorted(site.rglob("*.css")):
        found = _CSS.findall(path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(site)} loads {one}" for one in found)


def public_names() -> set[str]:
    """The names in `__all__` of the public packages, with their packages."""
    names = set()
    for package in PUBLIC:
        tree = ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"))
        prefix = "convnet" if package == "." else f"convnet.{package}"
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else ()
            if any(getattr(target, "id", "") == "__all__" for target in targets):
                names |= {f"{prefix}.{name}" for name in ast.literal_eval(node.value)}
        if package == "layers":  # and the classes in its table
            names |= {f"{prefix}.{found}" for found in _table(tree)}
    return names


def _table(tree: ast.Module) -> Iterator[str]:
    """The names that are values of dictionaries of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from (value.id for value in node.values if isinstance(value, ast.Name))


def documented_names(site: Path) -> set[str]:
    """The names that the reference describes, by the inventory that mkdocstrings writes."""
    content = (site / "objects.inv").read_bytes()
    rows = zlib.decompress(content.split(b"\n", 4)[4]).decode().splitlines()
    return {row.split(" ", 1)[0] for row in rows}


def _called_as_its_module(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[-1] == parts[-2]


def main(site: Path) -> int:
    """Prints what is wrong; the exit code."""
    documented = documented_names(site)
    # A function that is called as its module goes by both names.
    documented |= {name.rpartition(".")[0] for name in documented if _called_as_its_module(name)}
    missing = sorted(public_names() - documented)
    problems = [*elsewhere(site), *(f"the reference lacks {name}" for name in missing)]
    print("\n".join(problems) or "the site is whole, and loads nothing from elsewhere")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
