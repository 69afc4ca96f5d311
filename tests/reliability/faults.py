"""Faults, each provoked by a function that fails where something else happens than the docs say."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hub
import lmms_eval.evaluator  # not first on a full disk
import lmms_eval.tasks
import torch
from safetensors.torch import load_file, save_file
from scene import Scene, damaged, leftovers, read_only, save_model, sentence_of, small_disk
from transformers import LlavaForConditionalGeneration

from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.calibration.sources import load_samples
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.results.reading import read_run

Fault = Callable[[Scene], None]
FAULTS: dict[str, tuple[str, Fault]] = {}
# Indexing its two thousand tasks takes most of a short run.
_own_tasks_only = functools.partial(lmms_eval.tasks.TaskManager, include_defaults=False)
ENDINGS = ("No space left on device", "File too large")


def fault(name: str, happens: str) -> Callable[[Fault], Fault]:
    """Register a fault under a name, with what happens in words."""

    def register(function: Fault) -> Fault:
        FAULTS[name] = (happens, function)
        return function

    return register


def pruned(scene: Scene, more: str = "", model: Path | None = None, **given: Any) -> Any:
    return scene.create(f"pretrained={model or scene.model},sparsity=0.4,samples=12{more}", **given)


@fault("NaN or infinity in the weights", "one sentence")
def broken_weights(scene: Scene) -> None:
    file = scene.copy() / "model.safetensors"
    weights = load_file(file)
    name = scene.rng.choice([n for n in sorted(weights) if "layers." in n and "vision" not in n])
    place = scene.rng.randrange(weights[name].numel())
    weights[name].view(-1)[place] = scene.rng.choice([torch.nan, torch.inf])
    save_file(weights, file, {"format": "pt"})
    assert "not finite" in (sentence_of(lambda: pruned(scene, model=file.parent)) or "")
    layer = name.partition("layers.")[2].partition(".")[0]
    other = next(n for n in "1234" if n != layer)
    said = sentence_of(lambda: scene.create(f"pretrained={file.parent},layers={other}"))
    assert "not finite" in (said or "")  # the self-test's sentence


@contextlib.contextmanager
def memory_for(batch: int) -> Iterator[None]:
    """Within this block larger batches than that do not fit into memory."""
    whole = LlavaForConditionalGeneration.forward

    @functools.wraps(whole)
    def forward(self: Any, input_ids: Any = None, **inputs: Any) -> Any:
        if len(input_ids) > batch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the manual.")
        return whole(self, input_ids=input_ids, **inputs)

    with patch.object(LlavaForConditionalGeneration, "forward", forward):
        yield


@fault("memory runs out in a calibration batch", "the batch is halved until it fits; the plan is the same")
def little_memory(scene: Scene) -> None:
    with memory_for(scene.rng.randint(1, 7)):
        found = pruned(scene, cache=scene.folder / "other").plan
    assert found.dropped == pruned(scene).plan.dropped


@fault("memory for not even one sample", "one sentence")
def no_memory(scene: Scene) -> None:
    name = scene.rng.choice(["topopruned_llava", "taylor_pruned_llava", "greedy_pruned_llava"])
    with memory_for(0):
        said = sentence_of(lambda: pruned(scene, name=name))
    assert "memory" in (said or "")


@fault("disk full: score cache", "a warning; the run goes on without it")
def full_cache(scene: Scene) -> None:
    with small_disk(scene.cache, 0):
        assert pruned(scene).plan.dropped
        assert not [path for path in scene.cache.iterdir() if path.name != "filler"]


@fault("disk full: plan file", "one sentence; an older file stays as it is")
def full_plan(scene: Scene) -> None:
    out = scene.folder / "out"
    with small_disk(out, 0):
        arguments = ("--pretrained", scene.model, "--layers", "2", "-o", out / "plan.json")
        code, said = scene.command("plan", *arguments)
        assert code == 2 and said.startswith("topoprune: ") and any(words in said for words in ENDINGS)
        assert not [path for path in out.iterdir() if path.name != "filler"]


@fault("disk full: export", "one sentence; no folder, not even a part of one")
def full_export(scene: Scene) -> None:
    out = scene.folder / "out"
    arguments = ("--pretrained", scene.model, "--plan", scene.model / "plan.json", "-o", out / "pruned")
    with small_disk(out, scene.rng.choice([0, 4096, 16384, 65536])):
        code, said = scene.command("export", *arguments)
        assert code == 2 and said.startswith("topoprune: "), (code, said)
        assert not [path for path in out.iterdir() if path.name != "filler"]


@fault("disk full: sweep", "one sentence; what was finished stays valid")
def full_sweep(scene: Scene) -> None:
    out = scene.folder / "out"
    arguments = ("--pretrained", scene.model, "--criteria", "last_n", "--sparsities", "0.4", "-o", out)
    with small_disk(out, scene.rng.choice([0, 4096, 8192, 16384, 32768])):
        code, said = scene.command("sweep", *arguments, "--tasks", "topoprune_yesno", "--limit", "2")
        assert code == 2 and said.startswith("topoprune: "), (code, said)
        assert not leftovers(out)
        for plan in (out / "plans").glob("*.json"):
            PruningPlan.load(plan)
        for finished in (out / "layers").glob("*"):
            read_run(finished)


@fault("disk full: results of lmms-eval", "one sentence and a failing exit code")
def full_results(scene: Scene) -> None:
    """lmms-eval itself only logs that its results or samples could not be written, and ends with 0."""
    wanted = f"pretrained={scene.model},layers=2,self_test=False"
    for free, more in ((0, ("--limit", "2")), (32768, ("--limit", "100", "--log_samples"))):
        out = scene.folder / f"out-{free}"
        task = ("--tasks", "topoprune_yesno", "--batch_size", "50", "--output_path", out, *more)
        with small_disk(out, free), patch("lmms_eval.tasks.TaskManager", _own_tasks_only):
            code, said = scene.command("eval", "--model", "topopruned_llava", "--model_args", wanted, *task)
            assert free == 0 or list(out.rglob("*_plan.json")), "the results had room, the samples not"
        assert code == 1 and said.startswith("lmms-topoprune: the results could not be written to "), (
            code,
            said,
        )


@fault("writing fails at any step", "one sentence; an older file stays as it is, and nothing else")
def failing_write(scene: Scene) -> None:
    file = scene.folder / "plan.json"
    file.write_text("older")
    step = scene.rng.choice(["os.fsync", "pathlib.Path.replace", "pathlib.Path.open"])
    number = scene.rng.choice([errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
    arguments = ("--pretrained", scene.model, "--layers", "2", "-o", file)
    whole = Path.open

    def fail(*given: Any, **more: Any) -> Any:
        if step.endswith("open") and given[0].suffix != ".tmp":
            return whole(*given, **more)
        raise OSError(number, os.strerror(number))

    with patch(step, fail):
        code, said = scene.command("plan", *arguments)
    assert code == 2 and os.strerror(number) in said, (code, said)
    assert file.read_text() == "older" and not leftovers(scene.folder)


@fault("read-only cache", "its entries are used; what cannot be kept is a warning")
def read_only_cache(scene: Scene) -> None:
    first = pruned(scene).plan
    with read_only(scene.cache):
        assert pruned(scene).plan.dropped == first.dropped
        assert "calibrate (cached)" in pruned(scene).plan.stages
        assert pruned(scene, more=",k=3").plan.dropped


@fault("cache folder that is a file", "a warning; the run goes on without it")
def cache_is_a_file(scene: Scene) -> None:
    scene.cache.write_text("")
    assert pruned(scene).plan.dropped and scene.cache.read_text() == ""


@fault("damaged cache entry", "set aside and computed again")
def damaged_cache(scene: Scene) -> None:
    first = pruned(scene).plan
    for entry in scene.cache.glob("*.json"):
        entry.write_bytes(damaged(entry.read_bytes(), scene.rng))
    again = pruned(scene).plan
    assert (again.dropped, again.scores) == (first.dropped, first.scores)


@fault("damaged model file", "one sentence, unless the file still makes sense")
def damaged_model(scene: Scene) -> None:
    folder = scene.copy()
    file = scene.rng.choice(sorted(path for path in folder.iterdir() if path.name != "plan.json"))
    if scene.rng.random() < 0.2:
        file.unlink()
    else:
        file.write_bytes(damaged(file.read_bytes(), scene.rng))
    sentence_of(lambda: pruned(scene, model=folder))


@fault("missing or damaged shard", "one sentence, unless the file still makes sense")
def damaged_shard(scene: Scene) -> None:
    folder = save_model(scene.folder / "model", max_shard_size="100KB")
    file = scene.rng.choice(sorted(folder.glob("model*")))
    if scene.rng.random() < 0.3:
        file.unlink()
        assert sentence_of(lambda: pruned(scene, model=folder))
    else:
        file.write_bytes(damaged(file.read_bytes(), scene.rng))
        sentence_of(lambda: pruned(scene, model=folder))


@fault("damaged plan file", "one sentence, unless only notes were touched: then the same layers go")
def damaged_plan(scene: Scene) -> None:
    file = scene.folder / "plan.json"
    file.write_bytes(damaged((scene.model / "plan.json").read_bytes(), scene.rng))
    made: list[Any] = []
    arguments = f"pretrained={scene.model},plan={file},self_test=False"
    said = sentence_of(lambda: made.append(scene.create(arguments)))
    assert said or made[0].plan.dropped == (2, 3)


@fault("edited plan file", "one sentence")
def edited_plan(scene: Scene) -> None:
    """Every field but notes, given any other JSON value."""
    data = json.loads((scene.model / "plan.json").read_text())
    name = scene.rng.choice(["schema", "hash", "fingerprint", "layers", "dropped", "criterion", "parameters"])
    values = [None, 0, 7, -1, "x", "", [], [9], ["a"], {"a": 1}, True, 1e308, float("nan"), [[1]], "5-7"]
    data[name] = scene.rng.choice([value for value in values if value != data[name]])
    file = scene.folder / "plan.json"
    file.write_text(json.dumps(data))
    assert sentence_of(lambda: scene.create(f"pretrained={scene.model},plan={file}"))


def write_images(folder: Path, count: int) -> Path:
    """A JSONL file of pairs with `count` images beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, sample in enumerate(s for s in load_samples("embedded", 2 * count, 0) if s.image):
        if number < count:
            sample.image.resize((32, 32)).save(folder / f"{number}.png")
            rows.append(json.dumps({"instruction": sample.instruction, "image": f"{number}.png"}))
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder / "pairs.jsonl"


@fault("damaged or vanished calibration images", "up to a tenth are skipped and counted, else one sentence")
def damaged_images(scene: Scene) -> None:
    pairs = write_images(scene.folder / "images", 20)
    source, rows, broken = scene.rng.choice([pairs, pairs.parent]), 20, 0
    for number in scene.rng.sample(range(20), scene.rng.randint(1, 6)):
        image = pairs.parent / f"{number}.png"
        gone = scene.rng.random() < 0.5
        if gone:
            image.unlink()
        else:
            image.write_bytes(image.read_bytes()[: scene.rng.randrange(100)])
        rows -= gone and source != pairs  # a folder does not know what it once held
        broken += not (gone and source != pairs)
    arguments = f"pretrained={scene.model},sparsity=0.4,samples=20,calibration={source}"
    made: list[Any] = []
    said = sentence_of(lambda: made.append(scene.create(arguments, "cosine_pruned_llava")))
    if broken > max(1, rows / 10):
        assert said and "broken samples" in said, (rows, broken)
    else:
        assert made and made[0].plan.calibration["samples"] == rows - broken, (rows, broken, said)


@fault("calibration file that vanishes", "one sentence")
def vanished_file(scene: Scene) -> None:
    pairs = write_images(scene.folder / "images", 4)
    arguments = f"pretrained={scene.model},sparsity=0.4,samples=4,k=3,calibration={pairs}"
    whole = Path.open

    def opened(path: Path, *given: Any, **more: Any) -> Any:
        if path == pairs:  # it was seen, and goes before it is read
            path.unlink()
        return whole(path, *given, **more)

    with patch.object(Path, "open", opened):
        assert "cannot be read" in (sentence_of(lambda: scene.create(arguments)) or "")
    sample = Sample("What happens?", video=scene.folder / "gone.mp4")
    assert "gone.mp4" in (sentence_of(lambda: fingerprint([sample])) or "")


@fault("hub lost in the middle of a download", "one sentence; nothing half-written is ever loaded")
def lost_hub(scene: Scene) -> None:
    home, size = scene.folder / "home", sum(path.stat().st_size for path in scene.model.iterdir())
    with hub.hub(scene.model, scene.rng.randrange(size)) as dying:
        code, said = hub.plan(dying.url, home)
    assert "Traceback" not in said and code == 3, said
    assert said.strip().splitlines()[-1].startswith("topoprune: "), said
    with hub.hub(scene.model) as sound:
        code, said = hub.plan(sound.url, home)
    assert code == 0, said


@fault("hub out of reach", "one sentence, without the half minute of the hub client's own retries")
def no_hub(scene: Scene) -> None:
    code, said = hub.plan("http://127.0.0.1:9", scene.folder / "home")
    assert code == 3 and "cannot be reached" in said.strip().splitlines()[-1], said
    assert "Traceback" not in said and "Retrying" not in said, said


@fault(
    "killed or failing process among three", "the others end within seconds, with its number in one sentence"
)
def killed_rank(scene: Scene) -> None:
    what = scene.rng.choice(["kill", "kill first", "raise", "raise after", "interrupt"])
    script = Path(__file__).parents[1] / "calibration" / "failing_rank.py"
    subprocess.run([sys.executable, script, scene.folder, what], check=True)
    found = {int(file.stem): json.loads(file.read_text()) for file in (scene.folder / what).glob("?.json")}
    gone = {"kill": 1, "kill first": 0}.get(what)
    assert found.keys() == {0, 1, 2} - {gone}, (what, found)
    for rank in found.keys() - {1} if gone is None else found.keys():
        assert f"process {1 if gone is None else gone} " in found[rank]["sentence"], (what, found)
        assert found[rank]["seconds"] < 30
