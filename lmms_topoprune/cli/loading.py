"""Loading a dense model and its processor for the commands that do not evaluate."""

from __future__ import annotations

from typing import Any

from lmms_topoprune.errors import InputError, TopopruneError


def readers() -> dict[str, Any]:
    """Calibration sources that need lmms-eval, imported only when one is used."""

    def read(*arguments: Any) -> Any:
        from lmms_topoprune.harness.task_samples import task_samples

        return task_samples(*arguments)

    return {"task": read}


def load(pretrained: str, dtype: str | None, device: str | None) -> tuple[Any, Any]:
    """A model in evaluation mode and its processor (or tokenizer).

    Raises:
        InputError: it is not a model that transformers can load.
        UnreachableError: it is not on this machine and the hub cannot be reached.
    """
    import transformers

    from lmms_topoprune.device import find_device, find_dtype
    from lmms_topoprune.harness.pretrained import resolve

    place = find_device(device)
    precision = find_dtype(dtype, place)
    path = resolve(pretrained)
    try:
        try:
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(path, dtype=precision)
            processor: Any = transformers.AutoProcessor.from_pretrained(path)  # type: ignore[no-untyped-call]
        except ValueError:
            # A language model without images.
            model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=precision)
            processor = transformers.AutoTokenizer.from_pretrained(path)
    except TopopruneError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"pretrained is {pretrained!r}, which cannot be loaded: {reason}") from error
    return model.to(place).eval(), processor
