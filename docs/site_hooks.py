"""Hooks of mkdocs: links out of docs/ lead to the repository; the commands' help is put into its page.

On a checkout and on GitHub a link out of docs/ is relative, `../CONTRIBUTING.md`; the site has no such file.
What a link names has to exist, else `mkdocs build --strict` fails.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.site_hooks")
ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#\s]+)")
COMMANDS = "<!-- every command's help -->"
WIDTH = 80


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The page with its links out of docs/ made absolute and, where it asks for it, every command's help."""

    def absolute(found: re.Match[str]) -> str:
        place = found[1].rstrip("/")
        if not (ROOT / place).exists():
            log.warning("%s links to ../%s, which does not exist", page.file.src_uri, place)
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"]({config.extra['repository']}/{kind}/main/{place}"

    text = LINK.sub(absolute, markdown)
    return text.replace(COMMANDS, "\n".join(_commands())) if COMMANDS in text else text


def _commands() -> Iterator[str]:
    """A heading and what --help prints, for each command of the click group."""
    import click

    from lmms_topoprune.cli.main import topoprune

    group = click.Context(topoprune, info_name="topoprune")
    for name in topoprune.list_commands(group):
        command = topoprune.get_command(group, name)
        assert command is not None
        context = click.Context(
            command, info_name=name, parent=group, terminal_width=WIDTH, max_content_width=WIDTH
        )
        yield f"### topoprune {name}\n\n```text\n{command.get_help(context)}\n```\n"
