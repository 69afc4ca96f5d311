"""A document's picture, small and inside the page, where the run kept it."""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from lmms_topoprune._util.packaged import shared_path

EDGE = 320
"""Pixels of a picture's longer side."""
LARGEST = 2**25
"""Bytes of a file that is looked at."""


def picture(row: Mapping[str, Any]) -> str:
    """The document's picture, small, as a data address: what lmms-eval kept, or the embedded tasks' own."""
    kept = [_kept(source) for source in row.get("input_media") or () if isinstance(source, str)]
    raw = next(filter(None, [*kept, _embedded(row)]), None)
    if raw is None:
        return ""
    try:
        with Image.open(io.BytesIO(raw)) as opened:
            small = opened.convert("RGB")
        small.thumbnail((EDGE, EDGE))
        out = io.BytesIO()
        small.save(out, "WEBP", quality=80)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _kept(source: str) -> bytes | None:
    """The bytes of a data address or a local file; nothing is asked for over a network."""
    try:
        if source.startswith("data:image/") and ";base64," in source:
            return base64.b64decode(source.partition(";base64,")[2], validate=True)
        path = Path(source.removeprefix("file://"))
        return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None
    except (OSError, ValueError, binascii.Error):
        return None


def _embedded(row: Mapping[str, Any]) -> bytes | None:
    """The picture of a document of this package's own tasks."""
    about = row.get("accuracy")
    return _pictures().get(str(about.get("image_id"))) if isinstance(about, Mapping) else None


@cache
def _pictures() -> dict[str, bytes]:
    with zipfile.ZipFile(shared_path("tasks") / "data" / "images.zip") as archive:
        return {Path(name).stem: archive.read(name) for name in archive.namelist()}
