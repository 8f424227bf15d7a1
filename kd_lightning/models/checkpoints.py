"""Weights files of any origin: Lightning checkpoints, raw and nested state dicts, safetensors."""

import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import broken_entry
from kd_lightning.utils.seal import is_broken

RUN_WEIGHTS = "student.safetensors"  # what a run directory keeps (kd_lightning.runs.directory)


def load_weights(model: nn.Module, path: str | Path, key: str = "model.teacher_weights") -> None:
    """Load the file `path` into `model`, repairing prefixes and the classifier's name where only one repair fits.

    Raises:
        UserError: If the file is missing, damaged or holds code, or if its tensors do not fit: then the message lists
            what is missing, unexpected and of wrong shape.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        accepted = "a checkpoint file or a run directory"
        if key == "model.teacher_weights":
            accepted = "a checkpoint file, a run directory, 'auto' or 'imagenet'"
        raise UserError(f"{key}: {path} does not exist; give {accepted}")
    state = _repair(_tensors(_read(path, key), path, key), model, f"{key}: {path}")
    wanted = model.state_dict()
    missing = sorted(k for k in wanted if k not in state and not k.endswith("num_batches_tracked"))
    unexpected = sorted(k for k in state if k not in wanted)
    shapes = sorted(
        f"{k} {list(state[k].shape)} instead of {list(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    )
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    if any(problems.values()):
        told = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise UserError(f"{key}: {path} does not fit {type(model).__name__}: {told}")
    if broken := sorted(k for k, v in state.items() if not v.isfinite().all()):
        raise UserError(f"{key}: {path} has values that are nan or infinite, in {_some(broken)}")
    model.load_state_dict(state, strict=False)


def head_rows(path: Path, name: str) -> int | None:
    """Return the number of outputs of the classifier in a weights file; None if it cannot be told.

    Args:
        path: The file, which can be read.
        name: Name of the classifier in the network that it is for; in the file it may be another.
    """
    try:
        state = _tensors(_read(path, "weights"), path, "weights")
    except UserError:
        return None
    names = (f"{name.rpartition('.')[2]}.weight", "linear.weight")
    found = [k for k, v in state.items() if v.dim() == 2 and k.endswith(names)]
    return len(state[found[-1]]) if found else None


def _read(path: Path, key: str) -> Any:
    try:
        if path.suffix == ".safetensors":
            if is_broken(path):
                raise UserError(f"{key}: {path} is damaged: its checksum is wrong")
            return load_file(path)
        if entry := broken_entry(path):
            raise UserError(f"{key}: {path} is damaged (wrong checksum of {entry})")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle's protocol, before the error that tells more
            return torch.load(path, map_location="cpu", weights_only=True)  # a malicious pickle must not run
    except pickle.UnpicklingError as e:
        if "GLOBAL" in str(e):
            raise UserError(
                f"{key}: {path} holds more than tensors, and code in a checkpoint is never run; "
                "save it again as torch.save(model.state_dict(), …) or as safetensors"
            ) from e
        raise UserError(f"{key}: {path} is damaged or not a checkpoint ({_last_line(e)})") from e
    except UserError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise UserError(f"{key}: {path} is damaged or not a checkpoint ({_last_line(e)})") from e


def _tensors(data: Any, path: Path, key: str) -> dict[str, Tensor]:
    """The one mapping of names to tensors in a checkpoint, at the top or one level down."""
    found = [data] if _is_state(data) else []
    if not found and isinstance(data, Mapping):
        nested = {k: v for k, v in data.items() if _is_state(v)}
        own = "student" if key.startswith("model.student") else "teacher"
        named = [nested[k] for k in ("state_dict", "model", "net", own) if k in nested]
        found = named[:1] or list(nested.values())
    if len(found) != 1:
        keys = ", ".join(map(str, list(data)[:8])) if isinstance(data, Mapping) else type(data).__name__
        raise UserError(f"{key}: {path} should hold one state dict (names to tensors), found {len(found)} in: {keys}")
    return {k: v for k, v in found[0].items() if isinstance(v, Tensor)}


def _is_state(data: Any) -> bool:
    """Return whether `data` maps names to tensors; what modules add beside them, as CRD's memory, does not count."""
    if not isinstance(data, Mapping):
        return False
    values = [v for k, v in data.items() if not str(k).endswith("_extra_state")]
    return bool(values) and all(isinstance(v, Tensor) for v in values)


def _repair(state: dict[str, Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    wanted = model.state_dict()
    state = {".".join(p for p in k.split(".") if p not in ("module", "_orig_mod")): v for k, v in state.items()}
    # The prefix under which most of the model's names are found; a Lightning checkpoint has a loss beside it.
    prefixes = Counter(k[: -len(w)] for w in wanted for k in _ending(state, w))
    most = max(prefixes.values(), default=0)
    if most > sum(k in wanted for k in state):
        prefix = _chosen([p for p in prefixes if prefixes[p] == most], state, wanted, what)
        state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    return _rename_head(state, wanted)


def _chosen(prefixes: list[str], state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> str:
    """Return the prefix of the network that fits. Raises UserError if there are two."""
    if "student." in prefixes:  # peers of deep mutual learning lie beside the student of our own checkpoints
        prefixes = [p for p in prefixes if not p.startswith("loss.")]
    fits = {p: sum(p + w in state and state[p + w].shape == v.shape for w, v in wanted.items()) for p in prefixes}
    best = sorted(p for p in prefixes if fits[p] == max(fits.values()))
    if len(best) > 1 and fits[best[0]] >= len(wanted) - 2:  # all but a classifier of two tensors
        raise UserError(
            f"{what} holds {len(best)} networks that fit, below {', '.join(best)}; save the one that you mean by itself"
        )
    return min(best, key=len)


def _ending(state: Mapping[str, Tensor], name: str) -> list[str]:
    return [k for k in state if k.endswith(name) and (k == name or k[: -len(name)].endswith("."))]


def _rename_head(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`linear.weight` → `fc.weight`, if one module is missing, one unexpected, and their tensors have equal shapes."""
    missing = {k for k in wanted if k not in state and not k.endswith("num_batches_tracked")}
    unexpected = {k for k in state if k not in wanted}
    ours, theirs = ({k.rpartition(".")[0] for k in names} for names in (missing, unexpected))
    if len(ours) != 1 or len(theirs) != 1:
        return state
    new, old = f"{ours.pop()}.", f"{theirs.pop()}."
    renamed = {k: new + k[len(old) :] for k in unexpected}
    return {renamed.get(k, k): v for k, v in state.items()} if set(renamed.values()) == missing else state


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _last_line(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip() and "https://" not in line]
    return lines[-1][:120] if lines else type(e).__name__
