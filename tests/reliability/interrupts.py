"""Stop commands at random moments and look at what they leave; a process of its own, since it forks.

    python interrupts.py --model FOLDER --work FOLDER --count 20 --seed 0

Everything is imported once. Each trial forks a child that runs one `topoprune` command, sends it a signal at
a seeded moment between its start and the time it takes undisturbed, and checks what is left. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lmms_topoprune.cli import main as cli

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -signal.SIGKILL}
LONGEST = 120.0  # seconds that a command may need to end
TASK = "topoprune_yesno"


@dataclass(frozen=True)
class Place:
    """Where one trial takes place.

    Attributes:
        model: the dense model's folder.
        folder: everything the command writes.
    """

    model: Path
    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


def commands(place: Place) -> dict[str, list[str]]:
    """One command line a stage of the work: planning, exporting, evaluating, sweeping."""
    model, out = str(place.model), place.folder
    calibration = ["--pretrained", model, "--samples", "16"]
    arguments = f"pretrained={model},sparsity=0.4,samples=16,self_test=False"
    evaluate = ["--tasks", TASK, "--limit", "4", "--batch_size", "2", "--output_path", str(out / "results")]
    return {
        "plan": ["plan", *calibration, "--sparsity", "0.4", "-o", str(out / "plan.json")],
        "score": ["score", *calibration, "--criteria", "cosine,static", "-o", str(out / "scores.json")],
        "export": ["export", "--plan", f"{model}/plan.json", "--pretrained", model, "-o", f"{out}/pruned"],
        "eval": ["eval", "--model", "topopruned_llava", "--model_args", arguments, *evaluate],
        "sweep": ["sweep", *calibration, "--criteria", "cosine,last_n", "--sparsities", "0.4",
                  "--tasks", TASK, "--limit", "2", "-o", str(out / "sweep")],
    }  # fmt: skip


def start(arguments: list[str], place: Place) -> int:
    """Fork a child, in a session of its own, that runs the command; returns its process id.

    The child has then begun to answer signals: what it does before is this script's and no command's.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    begun, begins = os.pipe()
    child = os.fork()
    if child:
        os.close(begins)
        select.select([begun], [], [], LONGEST)
        os.close(begun)
        return child
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place.folder.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ["TOPOPRUNE_CACHE"] = str(place.cache)
    sys.argv = ["topoprune", *arguments]
    code: Any = 1
    try:
        cli.stoppable = partial(announced, cli.stoppable, begins)
        cli.main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    finally:  # whatever else comes out of main ends like in an interpreter: a traceback and 1
        if sys.exc_info()[0] not in (None, SystemExit):
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


@contextmanager
def announced(stoppable: Callable[[], AbstractContextManager[None]], begins: int) -> Iterator[None]:
    """The block in which a command answers signals, after a word to the parent that it has begun."""
    with stoppable():
        os.close(begins)  # the parent reads the end of the pipe
        yield


def ended(child: int) -> int:
    """The exit code, negative for the signal that killed it; -999 if it does not end."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -999


def complaints(place: Place, child: int, code: int, name: str, killed: bool) -> list[str]:
    """What is wrong after a command was stopped."""
    found = [f"process {pid} is left" for pid in session(child)]
    if not killed and code not in (0, SIGNALS[name]):
        found.append(f"the exit code is {code}")
    text = place.folder.with_suffix(".stderr").read_text(errors="replace")
    # What Python swallows in a finalizer it prints as "Exception ignored in"; docs/cli.md says so.
    found += ["there is a traceback"] * ("Traceback" in text and "Exception ignored" not in text)
    if not killed:
        found += [f"{path.name} is left" for path in leftovers(place.folder)]
    return found + [f"{entry.name} is not valid" for entry in place.cache.glob("*.json") if not valid(entry)]


def session(leader: int) -> list[int]:
    """Living processes of the session that `leader` started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix in (".tmp", ".lock") or p.name.endswith(".corrupt")]


def valid(path: Path) -> bool:
    """Whether a cache entry is whole, by its own digest."""
    from lmms_topoprune._util import files

    try:
        entry = json.loads(path.read_bytes())
        return bool(entry["digest"] == files.digest(entry["value"]))
    except (ValueError, KeyError):
        return False


@dataclass
class Stopper:
    """Runs trials on one model folder.

    Attributes:
        model: its folder.
        work: where trials take place.
        rng: which command, signal and moment.
        seconds: how long each command takes undisturbed.
    """

    model: Path
    work: Path
    rng: random.Random
    seconds: dict[str, float]

    @classmethod
    def on(cls, model: Path, work: Path, seed: int, names: list[str]) -> Stopper:
        """Run every command once, undisturbed, to know its time."""
        stopper = cls(model, work, random.Random(seed), {})
        for name in names:
            place = Place(model, work / f"whole-{name}")
            began = time.monotonic()
            code = ended(start(commands(place)[name], place))
            if code:
                raise RuntimeError(place.folder.with_suffix(".stderr").read_text())
            stopper.seconds[name] = time.monotonic() - began
        return stopper

    def trial(self, number: int) -> tuple[str, str, str, list[str]]:
        """Command, signal, outcome and complaints of one trial."""
        command = self.rng.choice(sorted(self.seconds))
        (name,) = self.rng.choices(list(SIGNALS), (3, 2, 1))
        place = Place(self.model, self.work / f"trial-{number}")
        moment = self.rng.uniform(0, self.seconds[command])
        child = start(commands(place)[command], place)
        time.sleep(moment)
        stop(child, name)
        code = ended(child)
        found = complaints(place, child, code, name, killed=name == "SIGKILL")
        again = ended(start(commands(place)[command], place)) if code or name == "SIGKILL" else 0
        if again and not (command == "export" and (place.folder / "pruned").exists()):
            found.append(f"the same command then ends with {again}")
        shutil.rmtree(place.folder, ignore_errors=True)
        return command, name, "finished before" if code == 0 else "stopped", found


def stop(child: int, name: str) -> None:
    """As a terminal does it: Ctrl-C reaches every process of the foreground group, other signals one."""
    send: Callable[[int, int], None] = os.killpg if name == "SIGINT" else os.kill
    try:
        send(child, getattr(signal, name))
    except ProcessLookupError:
        return


def warm() -> None:
    """Import what the commands import, so that a child starts at once."""
    import lmms_eval.__main__
    import lmms_eval.evaluator  # noqa: F401
    from lmms_eval import tasks

    import lmms_topoprune.cli.sweep
    import lmms_topoprune.harness.session
    import lmms_topoprune.sweep.runner
    import lmms_topoprune.topology.flag_zigzag  # noqa: F401
    from lmms_topoprune.harness.classes import topopruned_llava_chat  # noqa: F401

    # Indexing lmms-eval's own two thousand tasks would take most of an evaluation's time.
    tasks.TaskManager = partial(tasks.TaskManager, include_defaults=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="plan,score,export,eval,sweep")
    given = parser.parse_args()
    warm()
    stopper = Stopper.on(given.model, given.work, given.seed, given.commands.split(","))
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(given.count):
        command, name, outcome, found = stopper.trial(number)
        counts[f"{name} {outcome}"] += 1
        wrong += [f"trial {number}, {command}, {name}: {complaint}" for complaint in found]
    print(json.dumps({"tried": given.count, "wrong": wrong, **counts, "seconds": stopper.seconds}))


if __name__ == "__main__":
    main()
