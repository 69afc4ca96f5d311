"""Criteria, repairs and families of others: a package's, a single file's, a notebook's; and broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from lmms_topoprune import registry
from lmms_topoprune._util import references
from lmms_topoprune.errors import OptionError
from lmms_topoprune.options import PruningOptions

SOURCE = Path(__file__).parents[1]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "topoprune-more"
version = "1.0"

[project.entry-points."lmms_topoprune.criteria"]
deep_first = "topoprune_more:deep_first"
broken = "topoprune_more.gone:score"
cosine = "topoprune_more:deep_first"

[project.entry-points."lmms_topoprune.repairs"]
untouched = "topoprune_more:untouched"

[project.entry-points."lmms_topoprune.families"]
mine = "topoprune_more:FAMILY"
gone = "topoprune_more:NOTHING"
"""
MODULE = '''
import numpy as np
from lmms_topoprune import LayerScores, criterion, repair_method

FAMILY = {"wraps": "llava_hf", "generation": "topoprune_more:Answers"}


@criterion("deep_first", paper="Doe, Deep First", address="https://example.org", defaults={"protect_last": 0})
def deep_first(layers):
    """The deepest layers go first."""
    return LayerScores(np.arange(layers.count, dtype=float), "deep_first")


@repair_method("untouched", card="The weights were left as they are.", figure="nothing at")
def untouched(job):
    """Nothing is mended."""
    return {}, {str(cut.start): 0.0 for cut in job.cuts}


def __getattr__(name):
    if name == "Answers":
        from lmms_topoprune.harness.batched import BatchedGeneration
        return type("Answers", (BatchedGeneration,), {"mine": True})
    raise AttributeError(name)
'''


def python(code: str, *path: Path, **environment: str) -> str:
    """What a fresh interpreter prints that finds packages in these folders."""
    found = [str(folder) for folder in path] + [os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=path[-1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found), **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the other package as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "topoprune_more.py").write_text(MODULE)
    info = folder / "topoprune_more-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: topoprune-more\nVersion: 1.0\n")
    entries = (
        PROJECT.partition("[project.entry-points.")[2].replace('"', "").replace("project.entry-points.", "")
    )
    (info / "entry_points.txt").write_text("[" + entries)
    return folder


@pytest.fixture(scope="module")
def seen(package: Path) -> dict[str, Any]:
    """What one fresh interpreter sees of the other package, before and after it imports torch."""
    code = """
import json, sys
from lmms_topoprune import families, registry
from lmms_topoprune.options import PruningOptions
found = registry.criteria()
options = PruningOptions(criterion="deep_first")
criteria = {"names": list(found), "papers": found["deep_first"].papers, "protect": options.protect_last,
    "code": bool(found["deep_first"].code), "cosine": found["cosine"].score.__module__,
    "listed": registry.criterion_names(), "problems": list(registry.problems(registry.Criterion)),
    "torch": "torch" in sys.modules}
from lmms_topoprune.cli.doctor import _of_others
doctor = [[f.works, f.needed, f.detail] for f in _of_others()]
from lmms_eval.models import get_model
model = get_model("deep_first_pruned_mine")
others = {"repair": registry.get_repair("untouched").summary, "families": list(families.families()),
    "problems": families.problems(), "mine": model.mine, "criterion": model.registered.criterion}
print(json.dumps({"criteria": criteria, "doctor": doctor, "others": others}))
"""
    found: dict[str, Any] = json.loads(python(code, package).splitlines()[-1])
    return found


def test_of_two_packages_with_one_name_the_broken_one_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "lmms_topoprune.criteria"
    entries = [
        EntryPoint("twice", "json:JSONEncoder", group),  # a class
        EntryPoint("twice", "lmms_topoprune.criteria.cosine:score.score", group),
        EntryPoint("nowhere", "json", group),
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda table: {"twice": entries[:2], "nowhere": entries[2:]}
    )
    assert registry.get("twice").score is registry.get("cosine").score
    first, second = list(registry.problems(registry.Criterion))
    assert first.startswith("criterion 'twice' of another package is 'json:JSONEncoder', which is a type")
    assert second == (
        "criterion 'nowhere' of another package is 'json'; allowed: package.module:name or file.py:name"
    )


def test_a_package_adds_a_criterion_and_a_broken_one_hides_no_other(seen: dict[str, Any]) -> None:
    found = seen["criteria"]
    assert "deep_first" in found["names"] and "topology" in found["names"]
    assert "broken" in found["listed"] and "broken" not in found["names"]
    assert found["papers"] == {"Doe, Deep First": "https://example.org"}
    assert found["protect"] == 0 and found["code"] and not found["torch"]
    assert found["cosine"] == "lmms_topoprune.criteria.cosine", "its own name stays this package's"
    broken, hidden = sorted(found["problems"])
    assert "criterion 'cosine' of another package" in broken + hidden
    assert (
        "'broken' of topoprune-more is 'topoprune_more.gone:score', but topoprune_more.gone cannot be"
        in broken + hidden
    )


def test_a_package_adds_a_repair_and_a_family(seen: dict[str, Any]) -> None:
    found = seen["others"]
    assert found["repair"] == "Nothing is mended" and found["mine"] and found["criterion"] == "deep_first"
    assert "mine" in found["families"] and "llava" in found["families"] and "gone" not in found["families"]
    assert len(found["problems"]) == 1 and "family 'gone'" in found["problems"][0]


def test_doctor_names_what_a_package_broke(seen: dict[str, Any]) -> None:
    found = seen["doctor"]
    assert len(found) == 3 and not any(works or needed for works, needed, _ in found)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "from lmms_topoprune import LayerScores\n"
        "LIMIT = 3\n"
        "def score(layers):\n"
        '    """A plain function."""\n'
        "    return LayerScores(np.zeros(layers.count), 'mine')\n"
    )
    return path


def test_a_single_file_is_a_criterion(file: Path) -> None:
    found = registry.get(f"{file}:score")
    assert (found.summary, found.needs_samples, found.parameters) == ("A plain function", False, ())
    assert PruningOptions(criterion=f"{file}:score").criterion == f"{file}:score"
    assert registry.get(f"reverse:{file}:score").reversed


def test_scores_of_a_changed_file_are_others(file: Path) -> None:
    """The digest of its source is part of what the cache looks scores up by."""
    before = registry.get(f"{file}:score").code
    file.write_text(file.read_text().replace("zeros", "ones"))
    assert registry.get(f"{file}:score").code != before


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("{file}:scroe", "has no 'scroe'; did you mean 'score'"),
        ("{file}:LIMIT", "which is a int; allowed: a function or a Criterion"),
        ("{folder}/none.py:score", "cannot be imported: there is no such file"),
        ("no.such.module:score", "cannot be imported: ModuleNotFoundError"),
        ("{file}:", "allowed: package.module:name or file.py:name"),
        ("{folder}/leaves.py:score", "leaves.py cannot be imported: SystemExit: 0"),
    ],
)
def test_a_reference_that_leads_nowhere_is_one_sentence(file: Path, reference: str, sentence: str) -> None:
    (file.parent / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(OptionError, match=sentence) as error:
        PruningOptions(criterion=reference.format(file=file, folder=file.parent))
    assert str(error.value).startswith("criterion is ") and "\n" not in str(error.value)


def test_the_traceback_is_that_of_whoever_failed(tmp_path: Path) -> None:
    """The last call of ours and theirs decides, whichever library was called in the end."""
    path = tmp_path / "theirs.py"
    path.write_text(
        "import json\n"
        "from lmms_topoprune.plan import format_layers, parse_layers\n"
        "def theirs(): return json.loads('{')\n"
        "def ours(): return format_layers(3)\n"
        "def told(): return parse_layers('x')\n"
    )
    traces = {}
    for name in ("theirs", "ours", "told"):
        function = references.load(f"{path}:{name}", "function")
        with pytest.raises(Exception) as failed:
            function()
        traces[name] = references.own_trace(failed.value)
    assert traces["theirs"].splitlines()[1] == f'  File "{path}", line 3, in theirs'
    (broken := tmp_path / "broken.py").write_text("def score(layers): ...\n1 / 0\n")
    with pytest.raises(OptionError) as failed:
        references.load(f"{broken}:score", "function")
    trace = references.own_trace(failed.value).splitlines()
    assert trace[1] == f'  File "{broken}", line 2, in <module>' and trace[-1].startswith("ZeroDivisionError")
    assert traces["ours"] == traces["told"] == ""


def test_a_decorated_function_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))

    @registry.criterion("in_a_notebook", defaults={"k": "7"})
    def rule(states: Any, options: Any) -> None: ...

    assert PruningOptions(criterion="in_a_notebook").k == "7"
    assert "in_a_notebook" in registry.criterion_names()
    assert rule.state == "residual" and rule.parameters == registry.ANY_OPTION
    with pytest.raises(OptionError, match="criterion 'cosine' comes with lmms_topoprune"):
        registry.criterion("cosine")(lambda states: None)
    with pytest.raises(
        OptionError, match=r"attribute of a criterion is 'papre'; allowed: .*; did you mean 'paper'"
    ):
        registry.criterion("x", papre="y")(lambda states: None)
    with pytest.raises(
        OptionError, match="one of sums of criterion 'x' is 'norm'; allowed: relative_magnitude"
    ):
        registry.criterion("x", sums=("norm",))(lambda sums: None)


@pytest.mark.slow
def test_from_wheels_alone_a_plan_is_made_repaired_and_exported(tmp_path: Path) -> None:
    """Both packages as wheels in an empty folder: nothing of this checkout is touched or read."""
    if not (SOURCE / "lmms_topoprune").is_dir():
        pytest.skip("the package is tested from its wheel already")
    pytest.importorskip("hatchling")
    more, site, work = tmp_path / "more", tmp_path / "site", tmp_path / "work"
    for folder in (more, work):
        folder.mkdir()
    (more / "pyproject.toml").write_text(PROJECT)
    (more / "topoprune_more.py").write_text(MODULE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    for source in (SOURCE, more):
        subprocess.run([*pip, "--target", str(site), str(source)], check=True, timeout=300)
    code = """
import sys
from lmms_topoprune.cli.main import main
main(sys.argv[1:])
"""
    environment = {**os.environ, "PYTHONPATH": str(site), "TOPOPRUNE_CACHE": str(tmp_path / "cache")}

    def topoprune(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "deep_first" in topoprune("criteria") and "deep_first_pruned_mine" in topoprune("models", "--all")
    wanted = ("--criterion", "deep_first", "--sparsity", "0.2", "--samples", "8", "--repair", "untouched")
    plan = json.loads(topoprune("plan", *wanted, "-o", "plan.json", "--json"))
    assert plan["dropped"] == list(range(plan["layers"] - len(plan["dropped"]), plan["layers"]))
    assert plan["repair"]["method"] == "untouched" and plan["parameters"]["code"]
    topoprune("export", "--plan", "plan.json", "-o", "smaller")
    card = (work / "smaller" / "README.md").read_text()
    assert "The weights were left as they are." in card and "Doe, Deep First" in card
