"""One loaded model that lmms-eval evaluates again and again, pruned differently each time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from lmms_topoprune._util.packaged import shared_path
from lmms_topoprune.calibration.calibration_set import CalibrationSets
from lmms_topoprune.errors import InputError
from lmms_topoprune.harness.listing import refuse_unknown
from lmms_topoprune.harness.plan_file import leave_plan
from lmms_topoprune.harness.task_samples import evaluated, task_samples
from lmms_topoprune.harness.wrapper import Progress
from lmms_topoprune.pipeline import apply_plan
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.repair.cut_sums import KnownSums
from lmms_topoprune.repair.repaired_deletion import announce


class Diverted:
    """A stream that writes to a file while it is diverted, and to the screen before and after.

    Libraries that are imported meanwhile keep it as their sys.stderr, so it must outlive the file.
    """

    def __init__(self, screen: TextIO, file: TextIO) -> None:
        self.screen, self.file = screen, file

    def write(self, text: str) -> int:
        return (self.screen if self.file.closed else self.file).write(text)

    def flush(self) -> None:
        (self.screen if self.file.closed else self.file).flush()

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.screen, name)


@contextmanager
def logged_to(path: Path, on_error: Callable[[str], None] | None = None) -> Iterator[None]:
    """Append standard output, standard error and loguru's messages to a file within this block.

    Args:
        path: the log file.
        on_error: receives every message that lmms-eval logs as an error.
    """
    from loguru import logger

    path.parent.mkdir(parents=True, exist_ok=True)
    out, err = sys.stdout, sys.stderr
    with path.open("a", encoding="utf-8") as file:
        sys.stdout, sys.stderr = Diverted(out, file), Diverted(err, file)
        logger.remove()
        logger.add(file, level="INFO")
        if on_error is not None:
            logger.add(lambda message: on_error(message.record["message"]), level="ERROR")
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err
            logger.remove()
            logger.add(sys.stderr)


@dataclass
class Session:
    """A registered dense model, loaded once.

    Attributes:
        lm: the lmms-eval model object.
        name: its registered name, such as "dense_llava".
        model_args: what it was created from.
        batch_size: questions answered at once.
        tasks_folder: folder of task files beside lmms-eval's own; None for this package's.
        log: file for everything lmms-eval says; None leaves it on the screen.
        on_error: receives what lmms-eval logs as an error.
        calibrations: draws the samples of plans and repairs.
        sums: what calibration passes found for repairs.
    """

    lm: Any
    name: str
    model_args: str
    batch_size: int
    tasks_folder: Path | None = None
    log: Path | None = None
    on_error: Callable[[str], None] | None = None
    calibrations: CalibrationSets = field(default_factory=lambda: CalibrationSets({"task": task_samples}))
    sums: KnownSums = field(default_factory=KnownSums)
    _managers: dict[bool, Any] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        name: str = "dense_llava",
        model_args: str = "pretrained=embedded",
        *,
        batch_size: int = 16,
        device: str | None = None,
        tasks_folder: Path | None = None,
        log: Path | None = None,
        on_error: Callable[[str], None] | None = None,
    ) -> Session:
        """Load a model through lmms-eval's registry.

        Raises:
            InputError: lmms-eval does not know the model; `topoprune doctor` says why.
            TopopruneError: an argument is not allowed, or the weights cannot be reached.
        """
        with _logged(log, on_error):
            lm = _load(name, model_args, {"batch_size": batch_size, "device": device})
        lm.stay_loaded()
        return cls(lm, name, model_args, batch_size, tasks_folder, log, on_error)

    @property
    def opener(self) -> Callable[..., Session]:
        """Opens the same session again, in another process too: opener(device=..., log=...)."""
        return partial(
            Session.open,
            self.name,
            self.model_args,
            batch_size=self.batch_size,
            tasks_folder=self.tasks_folder,
        )

    @property
    def source(self) -> str:
        """Name or path the model was loaded from."""
        return str(self.lm.source)

    @property
    def model(self) -> Any:
        return self.lm.network

    @property
    def processor(self) -> Any:
        return self.lm.hf_processor

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse unknown tasks before anything is computed.

        Raises:
            OptionError: names the first unknown task and the nearest known one.
        """
        with _logged(self.log, self.on_error):
            manager = self._task_manager(tasks)
        refuse_unknown(tasks, manager)

    def asked_about(self, source: str, tasks: Sequence[str]) -> tuple[str, ...]:
        """Which of the tasks ask about documents of a calibration source."""
        kind, _, rest = source.partition(":")
        if kind not in ("task", "hf"):
            return ()
        drawn = [rest.partition(":")[0]] if kind == "task" else []
        with _logged(self.log, self.on_error):
            manager = self._task_manager([*tasks, *drawn])
        return evaluated(source, manager, tasks)

    def _task_manager(self, tasks: Sequence[str]) -> Any:
        """Indexing lmms-eval's own two thousand tasks takes seconds, so it is done only where needed."""
        from lmms_eval.tasks import TaskManager

        for defaults in (False, True):
            if defaults not in self._managers:
                self._managers[defaults] = TaskManager(
                    "ERROR",
                    include_path=str(self.tasks_folder or shared_path("tasks")),
                    include_defaults=defaults,
                    model_name=self.name,
                )
            if all(self._managers[defaults].match_tasks([task]) for task in tasks):
                break
        return self._managers[defaults]

    def expect(self, plans: Sequence[PruningPlan]) -> None:
        """Say which plans will be evaluated, so that one pass serves as many repairs as it can."""
        announce(((plan.dropped, plan.repair) for plan in plans), self.sums)

    def evaluate(
        self,
        plan: PruningPlan,
        tasks: Sequence[str],
        output: Path,
        *,
        model: str,
        model_args: str,
        limit: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Path:
        """Evaluate the model as the plan leaves it, and restore it.

        Args:
            plan: what to drop.
            tasks: names of tasks or groups.
            output: folder for the results, as for lmms-eval's --output_path.
            model, model_args: what the results file names; the command that gives the same result.
            limit: questions a task (or, below 1, their share).
            seed: of lmms-eval's random numbers.
            progress: called after every batch.

        Returns:
            The results file.

        Raises:
            InputError: the results could not be written.
            TopopruneError: the layers cannot be deleted, or the model fails while answering.
        """
        from lmms_eval.evaluator import simple_evaluate

        delete = partial(
            apply_plan, self.model, self.processor, plan, calibrations=self.calibrations, sums=self.sums
        )
        with _logged(self.log, self.on_error), self.lm.pruned_as(plan, delete, progress):
            results = simple_evaluate(
                model=self.lm,
                model_args=model_args,
                tasks=list(tasks),
                task_manager=self._task_manager(tasks),
                batch_size=self.batch_size,
                limit=limit,
                bootstrap_iters=0,
                random_seed=seed,
                verbosity="ERROR",
            )
            results["config"]["model"] = model
            return self._save(results, output)

    def _save(self, results: dict[str, Any], output: Path) -> Path:
        """Write results, samples and plan in lmms-eval's layout; it only logs what goes wrong, so look."""
        from lmms_eval import utils
        from lmms_eval.loggers import EvaluationTracker

        tracker = EvaluationTracker(output_path=str(output))
        tracker.general_config_tracker.log_experiment_args(
            self.name, results["config"]["model_args"], None, None, False
        )
        leave_plan(self.lm, tracker)
        samples = results.pop("samples")
        try:
            tracker.save_results_aggregated(
                results=results, samples=samples, datetime_str=utils.get_datetime_str()
            )
        except OSError as error:
            raise InputError(f"{str(output)!r} cannot be written: {error.strerror}") from None
        for task in results["configs"]:
            tracker.save_results_samples(task_name=task, samples=samples[task])
        found = sorted(output.rglob("*_results.json"))
        if len(found) != 1 or len(list(output.rglob("*_samples_*.jsonl"))) != len(results["configs"]):
            raise InputError(f"the results could not be written to {str(output)!r}; is the disk full?")
        return found[0]


def _logged(log: Path | None, on_error: Callable[[str], None] | None) -> AbstractContextManager[None]:
    return nullcontext() if log is None else logged_to(log, on_error)


def _load(name: str, model_args: str, more: dict[str, Any]) -> Any:
    from lmms_eval import models

    try:
        wrapper = models.get_model(name)
    except (ValueError, KeyError):
        raise InputError(f"lmms-eval knows no model {name!r}; `topoprune doctor` says why") from None
    return wrapper.create_from_arg_string(model_args, more)
