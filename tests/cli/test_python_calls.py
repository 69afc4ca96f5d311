"""The Python examples of docs/cli.md, run one after the other on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_examples_run(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "__main__"}
    for block in found:
        for theirs, ours in (
            ('"embedded"', repr(str(model_folder))),
            ("pretrained=embedded", f"pretrained={model_folder}"),
            ('["topoprune"]', '["topoprune_vqa"]'),
            ("limit=20", "limit=2"),
        ):
            block = block.replace(theirs, ours)
        exec(compile(block, str(PAGE), "exec"), names)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"plan.json", "states", "pruned-model", "runs", "board.md", "report.html", "baseline.json"} <= made
    assert len(names["runs"]) == 9 and names["model"].config.text_config.num_hidden_layers == 6
    out = capsys.readouterr().out
    assert "topology: drop 2 of 6 layers" in out and "True" in out and "topoprune_vqa" in out
