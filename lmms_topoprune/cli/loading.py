"""Loading a dense model and its processor for the commands that do not evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmms_topoprune.errors import InputError, TopopruneError

if TYPE_CHECKING:
    from pathlib import Path

    from lmms_topoprune.pipeline import Planner
    from lmms_topoprune.plan import PruningPlan


def readers() -> dict[str, Any]:
    """Calibration sources that need lmms-eval, imported only when one is used."""

    def read(source: str, count: int, seed: int, strict: bool) -> Any:
        from lmms_topoprune.harness.task_samples import task_samples

        return task_samples(source, count, seed, strict)

    return {"task": read}


def planner_for(pretrained: str, states: Path | None = None) -> Planner:
    """The planner of a command, before the model is loaded.

    Args:
        pretrained: name or path of the model.
        states: a folder where hidden states are looked up and kept.
    """
    from lmms_topoprune.harness.pretrained import resolve
    from lmms_topoprune.pipeline import Planner

    return Planner(pretrained, path=resolve(pretrained), readers=readers(), progress=True, states=states)


def load(
    pretrained: str, dtype: str | None, device: str | None, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """A model in evaluation mode and its processor (or tokenizer).

    Raises:
        InputError: it is not a model that transformers can load.
        UnreachableError: it is not on this machine and the hub cannot be reached.
    """
    import transformers

    more = {"trust_remote_code": trust_remote_code}  # without a say transformers asks at the terminal
    with _loading(pretrained, dtype, device) as (path, place, precision):
        try:
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                path, dtype=precision, **more
            )
            processor: Any = transformers.AutoProcessor.from_pretrained(path, **more)  # type: ignore[no-untyped-call]
        except ValueError:
            # A language model without images.
            model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=precision, **more)
            processor = transformers.AutoTokenizer.from_pretrained(path, **more)
    return model.to(place).eval(), processor


def load_lean(
    pretrained: str,
    plan: PruningPlan,
    dtype: str | None,
    device: str | None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any] | None:
    """The same without the layers that the plan drops; None where only the dense model tells if it fits.

    Raises:
        SurgeryError: a layer of the plan cannot be deleted from this model.
        InputError, UnreachableError: as above.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    from lmms_topoprune.surgery.load import load_pruned

    more = {"trust_remote_code": trust_remote_code}  # without a say transformers asks at the terminal
    with _loading(pretrained, dtype, device) as (path, place, precision):
        try:
            model = load_pruned(path, plan, verify=True, dtype=precision, device_map=place, **more)
        except InputError:
            return None
        images = type(model.config) in AutoModelForImageTextToText._model_mapping
        maker: Any = AutoProcessor if images else AutoTokenizer
        return model.eval(), maker.from_pretrained(path, **more)


@contextmanager
def _loading(pretrained: str, dtype: str | None, device: str | None) -> Iterator[tuple[str, str, Any]]:
    """Where to load from, the device and the type; whatever loading raises becomes one sentence."""
    from lmms_topoprune._util.device import find_device, find_dtype
    from lmms_topoprune.harness.pretrained import resolve, unloadable

    place = find_device(device)
    precision = find_dtype(dtype, place)
    path = resolve(pretrained)
    try:
        yield path, place, precision
    except TopopruneError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"pretrained is {pretrained!r}, which brings its own code; pass --trust-remote-code to run it"
            ) from error
        raise unloadable(pretrained, error) from error
