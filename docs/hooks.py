"""Links of the pages to files outside docs/ become the names of these files."""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]*)(#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""

    def name(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    return _OUTSIDE.sub(name, markdown)
