"""What every registered model adds to the lmms-eval wrapper it builds on: it prunes the model once loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from lmms_eval.api.model import lmms
from loguru import logger
from transformers import PreTrainedModel

from lmms_topoprune._util.files import digest
from lmms_topoprune._util.timing import Stages, measured
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.compat.evaluation import ask_for_likelihoods, evaluation, tell_plans_apart
from lmms_topoprune.compat.touched import replaced
from lmms_topoprune.compat.wrappers import each_process_alone, generating_through
from lmms_topoprune.errors import TopopruneError
from lmms_topoprune.families import Registered
from lmms_topoprune.harness import arguments as sorting
from lmms_topoprune.harness import plan_file as results
from lmms_topoprune.harness import pretrained
from lmms_topoprune.harness.answers import Answers
from lmms_topoprune.harness.partial_load import PartialLoad
from lmms_topoprune.harness.task_samples import evaluated, task_samples
from lmms_topoprune.harness.user_errors import one_sentence
from lmms_topoprune.pipeline import Planner, apply_plan
from lmms_topoprune.pipeline.checks import told_of_massive, why_nothing_goes
from lmms_topoprune.pipeline.plans import versions
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import Deletion
from lmms_topoprune.surgery.edits import outcome_of
from lmms_topoprune.surgery.self_test import self_test


def size(model: PreTrainedModel) -> dict[str, int]:
    """`parameters`, and `weight_bytes` with buffers."""
    return {
        "parameters": int(model.num_parameters()),
        "weight_bytes": int(model.get_memory_footprint(return_buffers=True)),
    }


def size_beside(model: PreTrainedModel, dense: dict[str, int]) -> dict[str, int]:
    """The same of a model whose deleted layers are kept for later: `held_bytes` is what they take up.

    They would not be there if only the pruned model had been loaded, so its memory is the peak less these.
    """
    own = size(model)
    return {**own, "held_bytes": dense["weight_bytes"] - own["weight_bytes"]}


Progress = Callable[[int, int], None]
"""Called with (answers so far, answers in all)."""


class PrunedModel(lmms):  # type: ignore[misc]
    """Mixin, placed before a wrapper of lmms-eval in a class's bases.

    Attributes:
        registered: which criterion and family it is.
        options: what the user asked for.
        setting: what else decides an answer, beyond weights, plan and request.
        size: parameters and bytes of the pruned model.
        answers: counts of answered, empty and failed requests.
        cache_identity: what lmms-eval's response cache has to tell apart.
    """

    registered: ClassVar[Registered]
    wrapped: ClassVar[type]
    _stays = False

    def __init__(self, /, **arguments: Any) -> None:
        """Load and prune.

        Raises:
            OptionError: an unknown or bad argument; nothing was loaded.
            UnreachableError: the model is not on this machine and the hub cannot be reached.
            TopopruneError: it cannot be loaded, planned for, pruned, or failed its self-test.
        """
        with one_sentence():
            self.answers = Answers()
            self.stages: Stages = {}
            dtype = Ranks.current().each(lambda: self._prepare(arguments))
            self.partial_load = PartialLoad(
                self.planner, self.options, arguments, dtype, self.registered.wraps
            )
            with measured(self.stages, "load"):
                self._load(arguments, dtype)
            self._prune()
            tell_plans_apart()
            ask_for_likelihoods()

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str | Mapping[str, Any], additional_config: dict[str, Any] | None = None
    ) -> PrunedModel:
        """What lmms-eval calls; also arranges for the plan to be written beside its results."""
        with one_sentence():
            given = sorting.completed(sorting.parse(arg_string), additional_config or {})
        model = cls(**given)
        evaluation().model = model
        results.leave_plan(model, evaluation().tracker)
        return model

    def _prepare(self, arguments: dict[str, Any]) -> torch.dtype | None:
        """Find mistakes before anything is loaded; complete the wrapped class's arguments in place.

        Returns:
            The type that the model is loaded in; None leaves it to the wrapped class.
        """
        allowed = sorting.parameters(self.wrapped)
        self.options = sorting.take_options(self.registered, arguments, allowed)
        device, self.dtype_asked = sorting.place(arguments, allowed)
        self.source = str(arguments.get("pretrained", allowed.get("pretrained")))
        arguments["pretrained"] = pretrained.resolve(self.source, arguments.get("revision"))
        dtype = sorting.choose_dtype(self.dtype_asked, device, arguments, allowed)
        self.planner = Planner(
            self.source,
            path=arguments["pretrained"],
            readers={"task": task_samples},
            asked=evaluated,
            progress=True,
        )
        self.planner.check(self.options)
        return dtype

    def _load(self, arguments: dict[str, Any], dtype: torch.dtype | None) -> None:
        try:
            with self.partial_load.loading(), each_process_alone(str(arguments.get("device", ""))):
                super().__init__(**arguments)
        except TopopruneError:
            raise
        except Exception as error:
            raise pretrained.unloadable(self.source, error, self.registered.wraps) from error
        if dtype is not None and not self.partial_load.typed:
            self._model.to(dtype)
        tokenizer = getattr(self.hf_processor, "tokenizer", self.hf_processor)
        if tokenizer is not None:
            tokenizer.padding_side = "left"
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    def _prune(self) -> None:
        model, processor = self.network, self.hf_processor
        if self.partial_load.plan is not None:
            self._plan = self.partial_load.plan
        else:
            self._delete()
            self.partial_load.remember(self._plan)
        if not self.plan.dropped and self.registered.criterion != "dense":
            logger.warning(
                f"{self.registered.name} deletes nothing: {why_nothing_goes(self.options, self.plan)}"
            )
        if self.plan.massive_dropped:
            logger.warning(f"{self.registered.name}: {told_of_massive(self.plan)}")
        if self.options.self_test:
            with measured(self.stages, "self_test"):
                self_test(model, processor)
        self.setting = self._describe_setting()
        self.size = size(model)
        if Ranks.current().rank == 0:
            logger.info(f"{self.registered.name}: {self.plan}")

    def _delete(self) -> None:
        """Make the plan with the dense model, and carry it out."""
        model, processor, ranks = self.network, self.hf_processor, Ranks.current()
        self._plan = self.planner.use(model, processor, ranks).plan(self.options)
        with self._changing():
            apply_plan(
                model, processor, self._plan, calibrations=self.planner.sets, ranks=ranks,
                batch_size=self.options.calibration_batch, progress=True, sums=self.planner.sums,
            )  # fmt: skip

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The stage in which the plan is carried out; of a healing it tells steps, tokens and losses too."""
        stage = "heal" if self._plan.heal else "repair" if self._plan.repair else "delete"
        with measured(self.stages, stage):
            yield
        if self._plan.heal:
            self.stages[stage] = {**outcome_of(self.network), **self.stages[stage]}

    @property
    def plan(self) -> PruningPlan:
        """The plan in force, with what every stage took so far."""
        return self._plan.with_stages(**self.stages)

    @contextmanager
    def pruned_as(
        self, plan: PruningPlan, delete: Callable[[], Deletion], progress: Progress | None = None
    ) -> Iterator[None]:
        """Inside, a dense model answers as a plan leaves it; it is counted and timed anew.

        Args:
            plan: what is in force.
            delete: carries the plan out.
            progress: called with (answers so far, answers in all) after every batch.
        """
        dense = size(self.network)
        self._plan, self.stages, self.answers = plan, {}, Answers()
        with self._changing():
            deletion = delete()
        with deletion:
            with measured(self.stages, "self_test"):
                self_test(self.network, self.hf_processor)
            self.size = size_beside(self.network, dense)
            with self._watched(progress):
                yield

    def stay_loaded(self) -> None:
        """lmms-eval empties a model after every evaluation; this one is going to be used again."""
        self._stays = True

    @contextmanager
    def _watched(self, progress: Progress | None) -> Iterator[None]:
        """Count the answers: how many are asked for, and every batch that comes out of generate()."""
        if progress is None:
            yield
            return
        ask: Any = self.generate_until
        done = [0, 0]

        def count_requests(requests: list[Any], *args: Any, **kwargs: Any) -> Any:
            done[:] = 0, len(requests)
            progress(0, done[1])
            return ask(requests, *args, **kwargs)

        def count_answers(generate: Any, *args: Any, **kwargs: Any) -> Any:
            answers = generate(*args, **kwargs)
            done[0] += len(answers)
            progress(done[0], done[1])
            return answers

        with replaced(self, generate_until=count_requests), generating_through(self.network, count_answers):
            yield

    @property
    def network(self) -> PreTrainedModel:
        """The transformers model itself."""
        model: Any = self._model
        return getattr(model, "module", model)

    @property
    def hf_processor(self) -> Any:
        """The transformers processor, under whichever name the wrapped class keeps it."""
        found = (vars(self).get(name) for name in ("processor", "_processor", "_image_processor"))
        return next((processor for processor in found if processor is not None), None)

    def _describe_setting(self) -> dict[str, Any]:
        return {
            "dtype": str(self.network.dtype),
            "attn_implementation": self.network.config._attn_implementation,
            "device": torch.device(self._device).type,
            "chat_template": digest(getattr(self.hf_processor, "chat_template", None)),
        }

    @property
    def cache_identity(self) -> str:
        return digest([self.plan.hash, self.setting])

    def record(self) -> dict[str, Any]:
        """What is written beside the plan after a run."""
        made = {"size": self.size, "versions": versions(), "answers": self.answers.to_json()}
        asked = {"dtype_asked": "auto"} if self.dtype_asked == "auto" else {}
        return {**self.setting, **asked, **made}

    def clean(self) -> None:
        """lmms-eval calls this on every process once all requests are answered."""
        if self._stays:
            return
        self.answers = self.answers.of_all_processes()
        if self.rank == 0:
            self.answers.report()
        super().clean()
