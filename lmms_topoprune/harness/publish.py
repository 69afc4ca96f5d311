"""Results sent elsewhere (Weights & Biases, the hub) by lmms-eval's own loggers, evaluation by evaluation.

lmms-eval does so at the end of its command; a sweep has many evaluations, and their files are what is sent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_eval.loggers import EvaluationTracker, WandbLogger
from lmms_eval.utils import get_datetime_str, simple_parse_args_string
from loguru import logger

from lmms_topoprune.errors import MissingExtraError, OptionError, UnreachableError, shown

LOST = "Could not save"  # lmms-eval's warning where it could not push either


@dataclass(frozen=True)
class Publisher:
    """Where results go.

    Attributes:
        wandb_args: lmms-eval's --wandb_args, such as "project=pruning"; None for nowhere.
        hf_hub_log_args: lmms-eval's --hf_hub_log_args, such as "push_results_to_hub=True"; None for nowhere.
    """

    wandb_args: str | None = None
    hf_hub_log_args: str | None = None

    def check(self) -> None:
        """Find out before a long sweep what cannot be sent at its end.

        Raises:
            MissingExtraError: wandb is asked for and not installed.
            OptionError: an argument that lmms-eval's loggers do not take.
            UnreachableError: the hub cannot be asked for the owner of the token.
        """
        if self.wandb_args is not None and importlib.util.find_spec("wandb") is None:
            raise MissingExtraError("wandb_args is given and wandb is not installed; pip install wandb")
        if self.hf_hub_log_args is not None:
            with tempfile.TemporaryDirectory() as folder:
                self._tracker(folder)

    def publish(self, file: Path, name: str, samples: dict[str, Sequence[dict[str, Any]]]) -> None:
        """Send one evaluation.

        Args:
            file: its results file.
            name: what it is called there.
            samples: task -> its samples.

        Raises:
            UnreachableError: the hub took nothing.
        """
        results = json.loads(file.read_text(encoding="utf-8"))
        if self.wandb_args is not None:
            self._log(results, name)
        if self.hf_hub_log_args is not None:
            self._push(results, samples)

    def _log(self, results: dict[str, Any], name: str) -> None:
        board = WandbLogger(**{"name": name, **simple_parse_args_string(self.wandb_args)})
        try:
            board.post_init(results)
            board.log_eval_result()
        finally:
            board.run.finish()

    def _push(self, results: dict[str, Any], samples: dict[str, Sequence[dict[str, Any]]]) -> None:
        lost: list[str] = []
        sink = logger.add(lambda text: lost.append(str(text)) if LOST in text else None, level="WARNING")
        try:
            with tempfile.TemporaryDirectory() as folder:
                tracker = self._tracker(folder)
                asked = results["config"]["model_args"]
                tracker.general_config_tracker.log_experiment_args(
                    results["config"]["model"], asked, None, None, False
                )
                tracker.save_results_aggregated(results, samples, get_datetime_str())
                for task, rows in samples.items():
                    tracker.save_results_samples(task, list(map(_unsaved, rows)))
        finally:
            logger.remove(sink)
        if lost:
            raise UnreachableError(
                "the results could not be pushed to the Hugging Face hub; run the same sweep again"
            )

    def _tracker(self, folder: str) -> EvaluationTracker:
        given = simple_parse_args_string(self.hf_hub_log_args)
        try:
            return EvaluationTracker(
                **{"token": os.environ.get("HF_TOKEN", ""), **given, "output_path": folder}
            )
        except (TypeError, ValueError) as error:
            raise OptionError(f"hf_hub_log_args is {shown(self.hf_hub_log_args)}: {error}") from None
        except Exception as error:
            raise UnreachableError(
                f"the Hugging Face hub cannot be asked for the token's owner: {error}"
            ) from None


def _unsaved(row: dict[str, Any]) -> dict[str, Any]:
    """A sample as lmms-eval has it before it saves it, so that it comes out as it was saved."""
    filtered = row.get("filtered_resps")
    answers = {"resps": [row.get("resps", filtered)], "filtered_resps": [filtered]}
    return {"target": "", **row, **answers, "arguments": [row.get("input")], "doc": None}
