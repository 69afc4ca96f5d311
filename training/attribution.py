"""`python -m training.attribution`: write calibration/ATTRIBUTION.md from photos.json."""

from __future__ import annotations

from lmms_topoprune.embedded.data import FOLDER, photos

LICENSES = {
    "Public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}

INTRODUCTION = """# Photographs of the embedded calibration set

These pictures are not covered by the project's own license; each has the one named beside it.
All were converted to RGB, scaled to at most 336 pixels a side and saved as JPEG; nothing else was changed.
The instructions in photos.json were written for this project (Apache-2.0).
"Package" says where the file was taken from, "Source" where its author published it.
Packages state licenses file by file: scikit-image in the docstrings of `skimage.data`, scikit-learn in
`sklearn/datasets/images/README.txt`, lomiri-wallpapers in its Debian copyright file, GCompris in the README
files beside its images.
This file is written by `python -m training.attribution`.

| File | Title | Author | License | Source | Package |
|---|---|---|---|---|---|
"""


def attribution() -> str:
    """One row a photograph, then the licenses' texts by address."""
    rows = [
        f"| {p['file']} | {p['title']} | {p['author']} | {p['license']} | <{p['source']}> | {p['package']} |"
        for p in photos()
    ]
    licenses = [f"- {name}: <{address}>" for name, address in LICENSES.items()]
    return INTRODUCTION + "\n".join(rows) + "\n\n" + "\n".join(licenses) + "\n"


if __name__ == "__main__":
    (FOLDER / "ATTRIBUTION.md").write_text(attribution(), encoding="utf-8")
