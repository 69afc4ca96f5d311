"""The calibration set: samples that are drawn, worded and hashed once for any number of plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from lmms_topoprune._util import files
from lmms_topoprune.calibration.loss import Answers
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.calibration.sources import Reader, load_samples
from lmms_topoprune.errors import OptionError, shown
from lmms_topoprune.plan import PruningPlan

Asked = Callable[[str], tuple[str, ...]]
"""The evaluated tasks that ask about documents of a calibration source."""


def nobody_asks(source: str) -> tuple[str, ...]:
    """Nothing is evaluated."""
    return ()


def refuse(source: str, asked: Asked) -> None:
    """Refuse a source whose documents a task asks about.

    Raises:
        OptionError: names the task.
    """
    if found := asked(source):
        raise OptionError(
            f"calibration is {shown(source)}, which task {found[0]!r} is evaluated on; pass another split or "
            "source, or calibration_forced=True"
        )


def marked(plan: PruningPlan, asked: Asked) -> PruningPlan:
    """The plan, which says so if it was made from documents that are evaluated."""
    found = sorted({task for source in plan.sources for task in asked(source)})
    return replace(plan, calibration={**plan.calibration, "evaluated": found}) if found else plan


@dataclass(eq=False)
class CalibrationSet:
    """N samples of one source.

    Attributes:
        samples: the samples in their order.
        source: where they come from, as PruningOptions.calibration says it.
        seed: what drew them.
    """

    samples: Sequence[Sample]
    source: str = "given"
    seed: int = 0
    _prompters: dict[int, Prompter] = field(default_factory=dict, repr=False)
    _answers: WeakKeyDictionary[Any, dict[int, Answers]] = field(
        default_factory=WeakKeyDictionary, repr=False
    )

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def fingerprint(self) -> str:
        """Of instructions and pixels; 16 hex digits."""
        return fingerprint(self.samples)

    def prompter(self, processor: Any) -> Prompter:
        """What words these samples; it remembers its prompts, and is the same one for the same processor."""
        return self._prompters.setdefault(id(processor), Prompter(processor))

    def answers(self, model: Any, processor: Any) -> Answers:
        """What this dense model answered so far: trials ask for the same, and so do healings."""
        return self._answers.setdefault(model, {}).setdefault(id(processor), {})

    def prompt_fingerprint(self, processor: Any) -> str:
        """Of the samples, their prompts and what the processor does to pixels."""
        return files.digest(self._essentials(processor))

    def describe(self, processor: Any, state: str, token: str, **more: Any) -> dict[str, Any]:
        """What a plan says about its calibration set.

        The fingerprint covers prompts, pixels, what the processor does to them, and all the rest.

        Args:
            processor: words the samples.
            state: which states were read, joined by +; "none".
            token: which token stands for a sample; "points" for a cloud.
            more: further facts.
        """
        facts = {
            "source": self.source,
            "samples": len(self.samples),
            "seed": self.seed,
            "token": token,
            "state": state,
            **more,
        }
        return {**facts, "fingerprint": files.digest([facts, *self._essentials(processor)])}

    def _essentials(self, processor: Any) -> list[Any]:
        """All that decides what the model sees."""
        prompter = self.prompter(processor)
        prompts = [prompter.prompt(sample) for sample in self.samples]
        return [self.fingerprint, prompts, prompter.media_settings]


@dataclass(eq=False)
class CalibrationSets:
    """Draws each calibration set once, for all who share this object.

    Attributes:
        readers: further calibration sources, such as "task" for lmms-eval's tasks.
        given: samples that stand for every set.
    """

    readers: Mapping[str, Reader] | None = None
    given: Sequence[Sample] | None = None
    _drawn: dict[tuple[str, int, int], CalibrationSet] = field(default_factory=dict)
    _strictly: set[tuple[str, int, int]] = field(default_factory=set)

    def of(self, source: str, count: int, seed: int, *, strict: bool = False) -> CalibrationSet:
        """The set of these samples; arguments and errors as of `load_samples`."""
        key = (source, count, seed)
        if key not in self._drawn or (strict and key not in self._strictly):
            samples = self.given
            if samples is None:
                samples = load_samples(source, count, seed, readers=self.readers, strict=strict)
            found = CalibrationSet(samples, source, seed)
            # Whoever asks for as many as a small source has means the same set.
            self._drawn[key] = self._drawn[source, len(samples), seed] = found
            if strict:
                self._strictly |= {key, (source, len(samples), seed)}
        return self._drawn[key]
