"""model_args, sorted: ours, the wrapped class's, and mistakes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from lmms_eval.utils import _smart_comma_split, simple_parse_args_string
from loguru import logger
from transformers import AutoConfig

from lmms_topoprune._util.device import check_device, cpu_dtype, find_device, find_dtype
from lmms_topoprune.errors import OptionError, nearest, shown, unknown
from lmms_topoprune.families import OPEN, VARIABLE, Registered
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.registry import DENSE as REFERENCE

DENSE = REFERENCE.name

LOOSE = {"pretrained", "device", "device_map", "dtype", "batch_size"}  # checked for what they mean
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def parse(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """model_args as lmms-eval reads them, and a sentence where it would stumble or silently drop something.

    Args:
        given: text, or a mapping as a YAML file or Python may have it.

    Raises:
        OptionError: a part is not name=value, a name is given twice, or a number is none.
    """
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    text, names = given, list[str]()
    for part in _smart_comma_split(text.strip()):
        name, equals, value = part.partition("=")
        if not equals:
            raise OptionError(
                f"model_args holds {shown(part)}; allowed: name=value pairs joined by commas, "
                "as in pretrained=embedded,sparsity=0.3"
            )
        if name in names:
            raise OptionError(f"{name} is given twice in model_args; allowed: once")
        names.append(name)
        try:
            simple_parse_args_string(part)
        except ValueError:  # "²" and numbers of more than 4300 digits, which it takes for whole numbers
            raise OptionError(f"{name} is {shown(value)}, which cannot be read as a number") from None
    return simple_parse_args_string(text)


def completed(given: Mapping[str, Any], command: Mapping[str, Any]) -> dict[str, Any]:
    """model_args with what lmms-eval's own options (--batch_size, --device) say beside them.

    What model_args say counts; an option may repeat it, not contradict it. lmms-eval gives a batch size of 1
    where none was asked for, so that contradicts nothing.

    Raises:
        OptionError: an option says something else than model_args.
    """
    for name, value in command.items():
        unsaid = value is None or (name, str(value)) == ("batch_size", "1")
        if name in given and not unsaid and str(given[name]) != str(value):
            raise OptionError(
                f"{name} is {shown(given[name])} in model_args and {shown(value)} beside them (--{name}); "
                "pass one of them"
            )
    return {**{name: value for name, value in command.items() if value is not None}, **given}


def parameters(wrapped: type) -> dict[str, Any]:
    """The named arguments of a wrapped class's constructor with their defaults.

    A constructor that takes **kwargs hands them to the class it derives from, so that one's count as well.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found: dict[str, Any] = {}
    for constructor in (vars(kind)["__init__"] for kind in wrapped.__mro__ if "__init__" in vars(kind)):
        signature = [*inspect.signature(constructor).parameters.values()][1:]
        found = {**{p.name: p.default for p in signature if p.kind in named}, **found}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature):
            break
    return found


def take_options(model: Registered, arguments: dict[str, Any], allowed: dict[str, Any]) -> PruningOptions:
    """Pop this package's options out of `arguments`; what is left belongs to the wrapped class.

    Raises:
        OptionError: an unknown name, a value that is not allowed, or another criterion than the model's name
            says.
    """
    _check_criterion(model, arguments.get("criterion"))
    names = {*PruningOptions.names(), *allowed, "dtype"}
    for name in arguments:
        if name == "families":
            raise OptionError(
                f"families is {shown(arguments[name])}, but lmms-eval looks models up before it reads "
                f"model_args; set the environment variable {VARIABLE} to that file instead"
            )
        if name not in names:
            raise OptionError(
                f"{shown(name)} is no argument of {model.name}; allowed: {', '.join(sorted(names))}"
                f"{nearest(name, names)}"
            )
    options = PruningOptions.take(arguments, criterion=model.criterion)
    if model.criterion == DENSE:
        _refuse_pruning(model, options)
    _check_types(arguments, allowed)
    _check_attention(arguments.get("attn_implementation"))
    return options


def _check_criterion(model: Registered, given: Any) -> None:
    if given is None or model.takes_criterion or str(given) == model.criterion or model.criterion == DENSE:
        return
    raise OptionError(
        f"criterion is {shown(given)}, but {model.name} is the model of {model.criterion!r}; "
        f"leave it out, or pass it to {OPEN}_{model.family}"
    )


def _refuse_pruning(model: Registered, options: PruningOptions) -> None:
    nothing = dict.fromkeys(("drop", "parameters", "layers", "plan"))
    for name, unset in {"sparsity": 0.0, **nothing, "criterion": DENSE}.items():
        value = getattr(options, name)
        if value != unset:
            raise OptionError(f"{name} is {shown(value)}; {model.name} deletes nothing, so leave it out")


def place(arguments: dict[str, Any], allowed: dict[str, Any]) -> tuple[str, str | torch.dtype | None]:
    """Fill in device and device_map where the wrapped class takes them, and take dtype out.

    Returns:
        The device, and the type that is asked for.

    Raises:
        OptionError: a device, dtype or batch size that cannot be.
    """
    device = find_device(arguments.get("device"))
    chosen = {"device": device, "device_map": _device_map(arguments.get("device_map"), device)}
    arguments.update({name: value for name, value in chosen.items() if name in allowed})
    if "batch_size" in arguments:
        arguments["batch_size"] = _batch_size(arguments["batch_size"])
    return device, find_dtype(arguments.pop("dtype", None), device)


def choose_dtype(
    asked: str | torch.dtype | None, device: str, arguments: dict[str, Any], allowed: dict[str, Any]
) -> torch.dtype | None:
    """Fill in dtype where the wrapped class takes it; "auto" on a CPU depends on the model.

    Returns:
        The type to load in, also where the wrapped class takes none; None leaves it to that class.
    """
    if asked == "auto" and device.startswith("cpu"):
        asked = cpu_dtype(_width(arguments))
        logger.info(f"dtype=auto on this processor and for this model: {asked}")
    if asked is not None and "dtype" in allowed:
        arguments["dtype"] = asked
    if asked is None or asked == "auto":
        return None
    return asked if isinstance(asked, torch.dtype) else getattr(torch, asked)


def _width(arguments: dict[str, Any]) -> int:
    """Of the model's hidden states; 0 for a configuration that only its own code can read."""
    try:
        given = {"trust_remote_code": bool(arguments.get("trust_remote_code"))}
        text = AutoConfig.from_pretrained(arguments["pretrained"], **given).get_text_config()
    except (OSError, ValueError):  # said in a sentence when the model is loaded
        return 0
    return int(getattr(text, "hidden_size", 0))


def _device_map(given: Any, device: str) -> Any:
    if given in (None, "") or given in DEVICE_MAPS or isinstance(given, dict):
        return given or device
    check_device("device_map", given, DEVICE_MAPS)
    return given


def _batch_size(given: Any) -> int:
    if not str(given).isdecimal() or int(given) < 1:
        raise OptionError(f"batch_size is {shown(given)}; allowed: whole numbers from 1")
    return int(given)


def _check_attention(given: Any) -> None:
    """A kernel of the hub is named owner/name; everything else transformers knows."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()}
    if given is not None and given not in known and "/" not in str(given):
        raise unknown("attn_implementation", given, known)


def _check_types(arguments: dict[str, Any], allowed: dict[str, Any]) -> None:
    """Refuse values of another type than the wrapped class's own default has.

    A wrapper takes "no" for true, and finds out that "many" is no number when it answers.
    """
    for name in arguments.keys() - LOOSE:
        value, default = arguments[name], allowed.get(name)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise OptionError(f"{name} is {shown(value)}; allowed: True, False")
        if type(default) is int and type(value) is not int:
            raise OptionError(f"{name} is {shown(value)}; allowed: a whole number")
        if isinstance(default, str):  # a revision may look like a number
            arguments[name] = str(value)
