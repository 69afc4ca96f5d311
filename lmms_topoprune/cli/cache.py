"""`topoprune cache`."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from lmms_topoprune._util.escape import printable
from lmms_topoprune.cli import shared

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.command()
@click.option("--clear", is_flag=True, help="Delete the entries instead of listing them.")
@click.option("--model", help="Only entries of this model; a pattern such as 'llava-hf/*' is allowed.")
@click.option("--older-than", help="Only entries not used for so long: 30m, 12h, 7d or 2w.")
@shared.as_json
def command(clear: bool, model: str | None, older_than: str | None, as_json: bool) -> None:
    """List or clear the cache of layer scores.

    Scores are kept, so that a second run with equal settings, or with another sparsity, does no calibration
    and does not even read the layers it drops. The environment variable TOPOPRUNE_CACHE names another folder,
    or "off". Above 256 MB the entries used longest ago are deleted by themselves.

    \b
    Examples:
      topoprune cache
      topoprune cache --json
      topoprune cache --clear --model embedded
      topoprune cache --clear --older-than 30d
    """
    age = _seconds(older_than)
    from lmms_topoprune._util.disk_cache import Cache, listing

    cache = Cache.default()
    found = [entry for entry in listing(cache) if entry.matches(model, age)]
    cleared = _cleared(cache, found, model, older_than) if clear else None
    if as_json:
        folder = None if cache.folder is None else str(cache.folder)
        facts = {"folder": folder, "limit": cache.limit, "bytes": sum(entry.size for entry in found)}
        entries = [entry.to_json() for entry in found]
        click.echo(json.dumps({**facts, "entries": entries, "cleared": cleared}))
    elif cache.folder is None:
        click.echo("The cache is switched off (TOPOPRUNE_CACHE).")
    else:
        click.echo(_text(cache, found, cleared))


def _cleared(cache: Any, found: list[Any], model: str | None, older_than: str | None) -> int:
    everything = model is None and older_than is None
    return int(cache.clear(None if everything else [entry.path for entry in found]))


def _text(cache: Any, found: list[Any], cleared: int | None) -> str:
    if cleared is not None:
        return f"{cleared} files deleted from {cache.folder}."
    total = sum(entry.size for entry in found)
    lines = [f"{cache.folder}: {len(found)} entries, {_bytes(total)} of at most {_bytes(cache.limit)}"]
    for entry in found:
        what = f"{entry.kind} ({entry.criterion})" if entry.criterion else entry.kind
        lines.append(f"  {_age(entry.age):>5}  {_bytes(entry.size):>8}  {what:<28}  {entry.model}".rstrip())
    return "\n".join(map(printable, lines))


def _seconds(text: str | None) -> float:
    """Read "7d" as seconds; 0 for nothing.

    Raises:
        OptionError: the text is not of that form.
    """
    from lmms_topoprune.errors import OptionError

    if text is None:
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise OptionError(f"older-than is {text!r}; allowed: a number and s, m, h, d or w, such as 7d")
    return float(match[1]) * SECONDS[match[2]]


def _age(seconds: float) -> str:
    unit = next((unit for unit in ("d", "h", "m") if seconds >= SECONDS[unit]), "s")
    return f"{seconds / SECONDS[unit]:.0f} {unit}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1024 or unit == "MB":
            break
        count /= 1024
    return f"{count:.0f} {unit}"
