"""What became of the requests: answered, empty or failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance
from loguru import logger

from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.errors import GenerationError, reason_of

MANY_EMPTY = 0.1


@dataclass(frozen=True)
class Failure:
    """Requests that got no answer.

    Attributes:
        task: its name.
        documents: ids of the documents that may have caused it.
        error: what was raised.
    """

    task: str
    documents: tuple[int | str, ...]
    error: str

    @classmethod
    def of(cls, requests: Sequence[Instance], error: BaseException) -> Failure:
        documents = tuple(dict.fromkeys(request.doc_id for request in requests))
        return cls(requests[0].task_name, documents, reason_of(error))

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.documents[:8])) + (", ..." if len(self.documents) > 8 else "")
        return f"generation failed in task {self.task!r}, document {shown}: {self.error}"

    def raised(self, can_record: bool = True) -> GenerationError:
        """The error that stops the run; `can_record` says whether on_error=record would let it go on."""
        advice = "; on_error=record counts failures instead of stopping"
        return GenerationError(f"{self}{advice if can_record else ''}")


@dataclass
class Answers:
    """Counts over a run; answers served by lmms-eval's response cache do not pass here.

    Attributes:
        total, empty: answers, and those without text.
        failures: requests without an answer.
        media: (task, document) -> hash of what it showed, which goes into the samples file.
    """

    total: int = 0
    empty: int = 0
    failures: list[Failure] = field(default_factory=list)
    media: dict[tuple[str, Any], str] = field(default_factory=dict)

    def shows(self, request: Instance, digest: str) -> None:
        """Note what a document shows."""
        if digest:
            self.media[request.task_name, request.doc_id] = digest

    def add(self, request: Instance, text: str) -> None:
        """Count an answer, unless the request only evens out the processes."""
        if not request.metadata.get("__padding_only__"):
            self.total += 1
            self.empty += not text.strip()

    def fail(self, request: Instance, error: BaseException) -> GenerationResult:
        """Record a failure; the result that lmms-eval scores is empty."""
        failure = Failure.of([request], error)
        if not request.metadata.get("__padding_only__"):
            self.failures.append(failure)
        logger.error(f"lmms-topoprune: {failure}")
        return GenerationResult(text="")

    def __iadd__(self, other: Answers) -> Answers:
        self.total += other.total
        self.empty += other.empty
        self.failures += other.failures
        self.media |= other.media
        return self

    def of_all_processes(self) -> Answers:
        """The counts of all processes together; the first one reports for all."""
        total = Answers()
        for part in Ranks.current().together(lambda: self):
            total += part
        return total

    def __str__(self) -> str:
        return f"{self.total} answers, {self.empty} of them empty, and {len(self.failures)} failures"

    def report(self) -> None:
        """Log the counts; warn about failures and about many empty answers."""
        if self.total:
            logger.info(f"lmms-topoprune: {self}")
        if self.failures:
            logger.error(
                f"lmms-topoprune: {len(self.failures)} requests failed and are scored as empty answers"
            )
        if self.total and self.empty / self.total >= MANY_EMPTY:
            logger.warning(
                f"lmms-topoprune: {self.empty} of {self.total} answers are empty; read the scores with care"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "empty": self.empty,
            "failed": len(self.failures),
            "failures": [asdict(failure) for failure in self.failures],
        }
