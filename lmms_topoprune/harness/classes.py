"""The registered classes, built when lmms-eval asks for them: `topopruned_llava_chat` and so on."""

from __future__ import annotations

from typing import Any

from lmms_topoprune._util.references import load
from lmms_topoprune.compat.videos import video_readers_optional
from lmms_topoprune.errors import MissingExtraError
from lmms_topoprune.families import Registered, registered
from lmms_topoprune.harness.user_errors import one_sentence


def __getattr__(name: str) -> type:
    model, _, kind = name.rpartition("_")
    found = registered().get(model)
    if found is None or kind not in ("simple", "chat"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with one_sentence():
        built = build_class(found, kind)
    globals()[name] = built
    return built


def build_class(model: Registered, kind: str) -> type:
    """A wrapper of lmms-eval with pruning before it.

    Raises:
        MissingExtraError: lmms-eval's wrapper needs a package that is not installed.
        OptionError: the declared generation loop does not exist.
    """
    from lmms_topoprune.harness.wrapper import PrunedModel

    wrapped = _wrapped_class(model, kind)
    bases = (_generation(model), PrunedModel, wrapped)
    names = {"registered": model, "wrapped": wrapped, "__module__": __name__, "__doc__": wrapped.__doc__}
    return type(f"{model.name}_{kind}", bases, {**names, "is_simple": kind == "simple"})


def _wrapped_class(model: Registered, kind: str) -> type:
    from lmms_eval.models import MODEL_REGISTRY_V2

    try:
        with video_readers_optional():
            return MODEL_REGISTRY_V2.get_model_class(model.wraps, force_simple=kind == "simple")
    except ImportError as error:
        raise MissingExtraError(f"{model.wraps} of lmms-eval cannot be imported: {error}") from error


def _generation(model: Registered) -> Any:
    place = model.generation or "lmms_topoprune.harness.guarded:GuardedGeneration"
    return load(place, f"generation of {model.name} is {place!r}")
