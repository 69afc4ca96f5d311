"""A sweep as one YAML file that repeats it, and what carries it out."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_topoprune._util import files
from lmms_topoprune._util.files import write
from lmms_topoprune.errors import InputError, OptionError, shown, unknown
from lmms_topoprune.families import families, registered
from lmms_topoprune.options import NO_HEALING, NO_REPAIR
from lmms_topoprune.sweep.grid import DENSE, Grid, questions

if TYPE_CHECKING:
    from lmms_topoprune.harness.publish import Publisher
    from lmms_topoprune.harness.session import Session
    from lmms_topoprune.results.reading import Run
    from lmms_topoprune.sweep.executor import Executor
    from lmms_topoprune.sweep.runner import Watcher

RECIPE = "recipe.yaml"
PUBLISHED = "published.json"
LISTS = {"criteria": str, "sparsities": float, "seeds": int, "repairs": str, "heals": str, "tasks": str}


@dataclass(frozen=True)
class Recipe:
    """What to evaluate: criteria x repairs x healings x sparsities x seeds, of every model.

    Attributes:
        models: for each the arguments of its wrapper, `pretrained` among them, and under `model` one of the
            names that `topoprune models` lists, or only a family's; the dense model of that family is loaded.
        criteria: names, or variants such as "topology:selection=block".
        sparsities: shares of the decoder layers to drop.
        seeds: of the calibration set.
        repairs: "none" and methods of repair.
        heals: "none" and healings behind the repair, such as "steps=200", as PruningOptions.heal has them.
        tasks: tasks or groups of lmms-eval.
        limit: questions a task, or below 1 their share; None for all.
        batch_size: questions answered at once.
        include_path: folder of tasks beside lmms-eval's own; None for this package's.
        options: pruning options that all share, such as {"samples": 64}.
    """

    models: Sequence[Mapping[str, Any]] = ({"model": "dense_llava", "pretrained": "embedded"},)
    criteria: Sequence[str] = ("zigzag_trials", "block_influence")
    sparsities: Sequence[float] = (0.1, 0.3)
    seeds: Sequence[int] = (0,)
    repairs: Sequence[str] = (NO_REPAIR,)
    heals: Sequence[str] = (NO_HEALING,)
    tasks: Sequence[str] = ("topoprune",)
    limit: float | None = None
    batch_size: int = 16
    include_path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out.

        Raises:
            OptionError: a value of a type or size that is not allowed, or an unknown model.
        """
        for name, kind in LISTS.items():
            object.__setattr__(self, name, _listed(name, getattr(self, name), kind))
        if not isinstance(self.options, Mapping):
            raise OptionError(f"options is {shown(self.options)}; allowed: a mapping such as {{samples: 64}}")
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise OptionError(f"batch_size is {shown(self.batch_size)}; allowed: whole numbers from 1")
        if self.limit is not None and type(self.limit) not in (int, float):
            raise OptionError(f"limit is {shown(self.limit)}; allowed: a number")
        object.__setattr__(self, "limit", questions(self.limit))
        object.__setattr__(self, "include_path", _plain(self.include_path))
        models = self.models if isinstance(self.models, Sequence) and self.models else [self.models]
        object.__setattr__(self, "models", tuple(map(_model, models)))
        _ = self.grid

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        """Read a YAML file.

        Raises:
            InputError: it cannot be read, or is not a mapping.
            OptionError: an unknown key, or a value that is not allowed.
        """
        import yaml

        try:
            found = yaml.safe_load(files.read_text(Path(path)))
        except OSError as error:
            raise InputError(f"recipe {str(path)!r} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(
                f"recipe {str(path)!r} is not valid YAML: {' '.join(str(error).split())}"
            ) from None
        if not isinstance(found, dict):
            raise InputError(
                f"recipe {str(path)!r} holds {shown(found)}; allowed: keys such as criteria: [cosine]"
            )
        names = [f.name for f in fields(cls)]
        for name in found:
            if name not in names:
                raise unknown(f"key of recipe {str(path)!r}", name, names)
        return cls(**found)

    def save(self, path: Path) -> None:
        """Write it so that `load` reads it.

        Raises:
            InputError: the file cannot be written.
        """
        import yaml

        told = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        text = "# topoprune sweep " + path.name + " -o FOLDER\n" + yaml.safe_dump(told, sort_keys=False)
        write(path, text)

    @property
    def grid(self) -> Grid:
        """The cells of each model.

        Raises:
            OptionError: an unknown criterion or option, or a sparsity out of range.
        """
        return Grid(
            tuple(_variant(*v) for v in itertools.product(self.criteria, self.repairs, self.heals)),
            tuple(self.sparsities),
            tuple(self.seeds),
            dict(self.options),
        )

    def folders(self, output: Path) -> list[Path]:
        """Where each model's sweep goes: the folder itself, or one below it for each of several."""
        if len(self.models) == 1:
            return [output]
        names = [
            re.sub(r"[^\w.=+-]+", "_", Path(str(m.get("pretrained", m["model"]))).name) for m in self.models
        ]
        return [output / (n if names.count(n) == 1 else f"{n}-{i}") for i, n in enumerate(names, 1)]


def _variant(criterion: str, repair: str, heal: str) -> str:
    """A criterion with its repair and healing, as the grid names it."""
    repaired = "" if repair == NO_REPAIR else f":repair={repair}"
    return criterion + repaired + ("" if heal == NO_HEALING else f":heal={heal}")


def _listed(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    """One value or a sequence of them, as a tuple of that type."""
    values = [value] if isinstance(value, (str, int, float)) else value
    taken = (int, float) if kind is float else (kind,)
    good = isinstance(values, Sequence) and all(
        isinstance(v, taken) and not isinstance(v, bool) for v in values
    )
    if not good or not values:
        what = {str: "text", float: "numbers", int: "whole numbers"}[kind]
        raise OptionError(f"{name} is {shown(value)}; allowed: {what}, one or a list of them")
    return tuple(kind(v) for v in values)


def _model(told: Any) -> dict[str, Any]:
    """A model of the recipe with the registered name of its dense model under `model`."""
    told = {"pretrained": told} if isinstance(told, (str, Path)) else told
    if not isinstance(told, Mapping):
        raise OptionError(
            f"model is {shown(told)}; allowed: a mapping such as {{model: llava, pretrained: x}}"
        )
    return {"model": dense_model(str(told.get("model", "dense_llava"))), **_without_model(told)}


def _without_model(told: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in told.items() if name != "model"}


def _plain(value: Any) -> Any:
    """A path as text, which YAML and model_args can hold."""
    return str(value) if isinstance(value, Path) else value


def dense_model(name: str) -> str:
    """The registered dense model of the family of a registered model, or of a family by its name.

    Raises:
        OptionError: there is no such model or family.
    """
    models, known = registered(), families()
    if name not in models and name not in known:
        raise unknown("model", name, [*known, *(n for n in models if n.startswith(DENSE))])
    return f"{DENSE}_{models[name].family if name in models else name}"


def model_args(told: Mapping[str, Any]) -> str:
    """A model of a recipe as lmms-eval's model_args."""
    return ",".join(f"{name}={value}" for name, value in _without_model(told).items())


def run_sweep(
    recipe: Recipe,
    output: Path | str,
    *,
    device: str | None = None,
    watcher: Watcher | None = None,
    executor: Callable[[Session, Path], Executor | None] | None = None,
    on_error: Callable[[str], None] | None = None,
    publisher: Publisher | None = None,
    **more: Any,
) -> list[Run]:
    """Evaluate everything that a recipe asks for; resumable, and the recipe is kept beside the results.

    Args:
        recipe: what to evaluate.
        output: folder for plans and results; of several models each has a folder below it.
        device: "cuda", "mps" or "cpu"; the best one here by default.
        watcher: is told about progress.
        executor: makes what evaluates of the loaded model and a folder for logs; that model by default.
        on_error: receives what lmms-eval logs as an error.
        publisher: sends finished evaluations elsewhere, each once.
        more: other arguments of `sweep.runner.sweep`.

    Returns:
        One run a cell of every model, dense ones first.

    Raises:
        TopopruneError: as `sweep.runner.sweep`, or the model cannot be loaded.
    """
    from lmms_topoprune.harness.session import Session
    from lmms_topoprune.sweep.runner import sweep

    runs: list[Run] = []
    if publisher is not None:
        publisher.check()
    for told, folder in zip(recipe.models, recipe.folders(Path(output)), strict=True):
        session = Session.open(
            told["model"],
            model_args(told),
            batch_size=recipe.batch_size,
            device=device,
            tasks_folder=None if recipe.include_path is None else Path(recipe.include_path),
            log=folder / "lmms-eval.log",
            on_error=on_error,
        )
        session.check_tasks(recipe.tasks)
        recipe.save(Path(output) / RECIPE)
        evaluator = executor(session, folder) if executor else None
        given = {"limit": recipe.limit, "executor": evaluator, "watcher": watcher, **more}
        found = sweep(session, recipe.grid, recipe.tasks, folder, **given)
        if publisher is not None:
            _publish(found, folder, publisher)
        runs += found
    return runs


def _publish(runs: Sequence[Run], folder: Path, publisher: Publisher) -> None:
    """Send what was not sent before; PUBLISHED in the folder says what was."""
    from lmms_topoprune.results.reading import read_samples

    file = folder / PUBLISHED
    sent: list[str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for run in runs:
        name = str(run.path.relative_to(folder))
        if name not in sent:
            publisher.publish(run.path, run.label, {task: read_samples(run.path, task) for task in run.tasks})
            sent.append(name)
            files.write_json(file, sent)
