"""Where a model comes from: the package, a folder or the hub, checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from lmms_topoprune._util.packaged import EMBEDDED, model_path
from lmms_topoprune.compat.from_pretrained import never_ask_for_code
from lmms_topoprune.errors import InputError, OptionError, TopopruneError, UnreachableError, reason_of, shown

INSTEAD = f"pass pretrained={EMBEDDED} or a local folder"


def resolve(pretrained: str, revision: str | None = None) -> str:
    """A folder or a hub name that from_pretrained can load.

    Raises:
        OptionError: a revision of something that has none.
        InputError: no such folder, or the hub has no such model (for this user).
        UnreachableError: it is not on this machine and the hub cannot be reached.
    """
    never_ask_for_code()
    if pretrained == EMBEDDED:
        _refuse_revision(revision, pretrained)
        return str(model_path())
    folder = Path(pretrained)
    try:
        folder = folder.expanduser()
        found = folder.is_dir()
    except (OSError, RuntimeError):  # a name too long for a path, a user that does not exist
        found = False
    if found:
        if not (folder / "config.json").is_file():
            if (folder / "adapter_config.json").is_file():
                raise InputError(
                    f"pretrained is {shown(pretrained)}, an adapter, which counts the layers of another "
                    "model; merge it into that one (peft: merge_and_unload) and pass the folder of the whole"
                )
            raise InputError(f"pretrained is {shown(pretrained)}, a folder without config.json; {INSTEAD}")
        _refuse_revision(revision, pretrained)
        return str(folder)
    if isinstance(_cached(pretrained, revision), str):
        return pretrained
    _ask_hub(pretrained, revision)
    return pretrained


def _refuse_revision(revision: str | None, pretrained: str) -> None:
    """Only the hub has revisions; transformers ignores one for a folder."""
    if revision not in (None, "main"):
        raise OptionError(
            f"revision is {shown(revision)}, but pretrained={pretrained} has none; "
            "leave revision out or pass a model of the hub"
        )


def unloadable(name: str, error: Exception, by: str = "transformers") -> TopopruneError:
    """What a failed load comes to: the hub was lost in the middle, or the model itself is at fault."""
    if isinstance(error, OSError) and not Path(name).is_dir() and name != EMBEDDED and not _answers(name):
        return UnreachableError(
            f"the Hugging Face hub was lost while {name} was loading; try again, or {INSTEAD}"
        )
    if "trust_remote_code" in str(error):
        return InputError(
            f"pretrained is {shown(name)}, which comes with code of its own; it is not run unless "
            "trust_remote_code=True is given (--trust-remote-code on the command line)"
        )
    return InputError(f"pretrained is {shown(name)}, which {by} cannot load: {reason_of(error)}")


def _answers(name: str) -> bool:
    """Whether the hub says anything at all."""
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=10)
    except HfHubHTTPError:
        return True
    except Exception:
        return False
    return True


def _cached(name: str, revision: str | None) -> object:
    try:
        return try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        raise InputError(f"pretrained is {shown(name)}, which is no folder here; {INSTEAD}") from None


def _ask_hub(name: str, revision: str | None) -> None:
    """One request without retries: from_pretrained by itself tries for half a minute before it gives up."""
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=10)
    except GatedRepoError:
        raise InputError(
            f"pretrained is {name!r}, a gated model; ask for access and log in to the Hugging Face hub, "
            f"or {INSTEAD}"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"pretrained is {name!r}, which is no folder here and no model of the Hugging Face hub; {INSTEAD}"
        ) from None
    except HfHubHTTPError as error:
        raise UnreachableError(
            f"{name} could not be read from the Hugging Face hub ({error.response.status_code}); {INSTEAD}"
        ) from None
    except Exception:  # whatever the hub's client raises for a dead network, a time-out or offline mode
        raise UnreachableError(
            f"{name} is not on this machine and the Hugging Face hub cannot be reached; {INSTEAD}"
        ) from None
