"""Networks and tokenizers of Hugging Face: `hf/NAME` of the hub or its cache, or `hf/FOLDER`."""

import hashlib
import importlib.util
import logging
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.files import checksum

PREFIX = "hf/"
T = TypeVar("T")


def is_hub(name: Any) -> bool:
    """Return whether `name` means something of Hugging Face."""
    return isinstance(name, str) and name.startswith(PREFIX)


def library(name: str, key: str) -> Any:
    """Return the library transformers, told to be quiet. Raises UserError if it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{key}: {name!r} needs transformers: pip install 'kd_lightning[hf]'")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings of each try, before our one line
    return transformers


def source(name: str, key: str) -> str:
    """Return the folder, or the name in the hub, that `hf/…` means. Raises UserError if it can be neither."""
    rest = name.removeprefix(PREFIX)
    folder = Path(rest).expanduser()
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.is_dir():
        raise UserError(
            f"{key}: {folder} has no config.json; a folder of Hugging Face has config.json, model.safetensors and, for "
            "text, tokenizer.json"
        )
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", rest):
        raise UserError(f"{key}: there is no folder {folder}; after hf/ comes a folder, or a name such as ORG/NAME")
    return rest


def content(name: str) -> str:
    """Return a network's name; of a folder of Hugging Face with 12 hex digits that change with what it holds."""
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    if not is_hub(name) or not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.glob("*.*") if p.is_file()):
        digest.update(f"{path.name} {checksum(path)} ".encode())
    return f"{PREFIX}{folder.name}-{digest.hexdigest()[:12]}"


def fetched(name: str, key: str, what: str, get: Callable[[str], T]) -> T:
    """Return `get(source)`; whatever the hub's client raises becomes one line that says what to put where.

    Args:
        name: `hf/…`.
        key: What the user typed to name it.
        what: What is wanted of it, for the message.
        get: Reads it from a folder or by its name.
    """
    place = source(name, key)
    if not Path(place).is_dir():
        say(f"{key}: looking for {name} in the Hugging Face hub; without a network this takes a minute", detail=True)
    try:
        return get(place)
    except UserError:
        raise
    except Exception as e:  # the hub's client has its own and changing exception types
        told = " ".join(f"{type(e).__name__}: {e}".split())[:160]
        if isinstance(e, pickle.UnpicklingError):
            told = "its weights are a pickle that holds code, which is never run; model.safetensors is needed"
        if Path(place).is_dir():
            raise UserError(f"{key}: cannot read {what} in the folder {place} ({told})") from e
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        raise UserError(
            f"{key}: cannot get {what} of {name!r} from the Hugging Face hub or its cache {cache} ({told}); on a "
            f"connected machine run 'hf download {place} --local-dir FOLDER', copy FOLDER here, and write hf/FOLDER"
        ) from e
