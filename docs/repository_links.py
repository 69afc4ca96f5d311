"""A hook of mkdocs: links from a page to files outside docs/ lead to the repository.

On a checkout and on GitHub such a link is relative, `../CONTRIBUTING.md`; the site has no such file. What a
link names has to exist, else `mkdocs build --strict` fails.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.repository_links")
ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#\s]+)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The page with its links out of docs/ made absolute."""

    def absolute(found: re.Match[str]) -> str:
        place = found[1].rstrip("/")
        if not (ROOT / place).exists():
            log.warning("%s links to ../%s, which does not exist", page.file.src_uri, place)
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"]({config.extra['repository']}/{kind}/main/{place}"

    return LINK.sub(absolute, markdown)
