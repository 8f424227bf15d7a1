"""Files of stored answers: what they hold, reading, and writing.

A file holds the answers to the N training samples; C classes. Of k < C answers for each sample ("top k"), the mass that
is left is spread evenly over the other C - k classes: their logit is `tail - ln(C - k)`. At T = 1 the k probabilities
and the sum of the others are then exact, and only how the others differ among themselves is lost.

| tensor | shape | meaning |
|---|---|---|
| `logits` or `probabilities` | `[N, C]`, or `[N, k]` with `indices` | the answers |
| `indices` | `[N, k]` | classes of the k answers |
| `tail` | `[N]` | ln of the sum of exp of the logits that are left out; may be missing for log-probabilities |
| `index` | `[N]` | position of each sample in the training split; without it, rows are in its order |

Beside them, as metadata of safetensors or as arrays of text in `.npz`: `names` (file of each sample, instead of
`index`), `classes` (in the order of the columns), and `fingerprint` (of the training samples).
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kd_lightning.data.module import DataModule
from kd_lightning.teachers.stored import StoredAnswers
from kd_lightning.teachers.stored_checks import checked_answers, rows_of_samples
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.seal import OPEN, SEAL, is_broken, seal

SUFFIXES = (".safetensors", ".npz")
TENSORS = ("logits", "probabilities", "indices", "tail", "index")
WORDS = ("names", "classes", "fingerprint", "teacher")


def read_stored(
    path: Path, data: DataModule, key: str, classes: Sequence[str] | None = None, views: Any = None
) -> StoredAnswers:
    """Return the answers in a file to the training samples of `data`, in their order.

    Args:
        path: A file as the module describes it.
        data: The data, set up.
        key: What the user typed to name the file, for messages.
        classes: Class names in the order of the columns; None for those that the file names, or the data's order.
        views: `center` if the answers are those to samples as they are, whatever view the student sees.

    Raises:
        UserError: If the file is missing, damaged, holds code, or does not fit the data; one line.
    """
    if views not in (None, "center"):
        raise UserError(f"model.teacher_views must be center or null, got {views!r}")
    where = f"{key}: {path}"
    tensors, words = _read(path, where)
    if data.num_views != 1 and views is None:
        raise UserError(
            f"{key}: a stored answer belongs to a training sample as it is, and {data.name} shows views of it that are "
            "augmented or have no number; model.teacher_views=center gives the answer to all of them, or turn them off"
        )
    names = list(classes) if classes is not None else words.get("classes")
    order = None
    if names is not None and names != list(data.classes):
        if lacks := [name for name in data.classes if name not in names]:
            raise UserError(f"{where} has no class {lacks[0]!r}{did_you_mean(lacks[0], names)}")
        order = [names.index(name) for name in data.classes]
    count = data.num_classes if names is None else len(names)
    given = [name for name in ("logits", "probabilities") if name in tensors]
    if len(given) != 1:
        raise UserError(f"{where} must have either logits or probabilities, got {', '.join(given) or 'none of them'}")
    rows = rows_of_samples(tensors, words, data, where)
    values, indices, tail = checked_answers(tensors, count, where)
    if rows is not None:
        values = values[rows]
        indices, tail = (None if part is None else part[rows] for part in (indices, tail))
    return StoredAnswers(values, count, indices, tail, order)


def write_stored(path: Path, logits: Tensor, facts: Mapping[str, Any], top_k: int | None = None) -> None:
    """Write logits `[N, C]` of all training samples, in their order.

    Args:
        path: A `.safetensors` or `.npz` file.
        logits: The answers.
        facts: What is known beside them: some of `WORDS`.
        top_k: Number of the largest logits to keep; None for all.
    """
    logits = logits.float().cpu()
    tensors = {"logits": logits.contiguous()}
    if top_k is not None and top_k < logits.shape[1]:
        top = logits.topk(top_k)
        others = logits.scatter(1, top.indices, -torch.inf)
        tensors = {"logits": top.values.contiguous(), "indices": top.indices.int(), "tail": others.logsumexp(1)}
    if path.suffix == ".npz":
        arrays: Any = {name: tensor.numpy() for name, tensor in tensors.items()}
        arrays |= {name: np.array(value) for name, value in facts.items()}
        np.savez(path, **arrays)
        return
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    save_file(tensors, path, metadata=words | {SEAL: OPEN})
    seal(path)


def check_suffix(path: Path, key: str) -> None:
    """Raise UserError unless `path` is named as a file of answers."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{key}: {path} must be a file {' or '.join(SUFFIXES)}")


def _read(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the words of a file. Nothing in it is run."""
    check_suffix(path, where.partition(":")[0])
    if not path.is_file():
        raise UserError(f"{where} does not exist; give a file of stored predictions ({', '.join(SUFFIXES)})")
    try:
        tensors, words = (_npz if path.suffix == ".npz" else _safetensors)(path)
    except (SafetensorError, zipfile.BadZipFile, OSError, ValueError, EOFError, KeyError, TypeError) as e:
        why = (str(e).strip() or type(e).__name__).splitlines()[0][:120]
        raise UserError(f"{where} is damaged or no file of stored predictions ({why})") from e
    for name in tensors:
        if name not in TENSORS:
            raise UserError(
                f"{where} has an unknown entry {name!r}{did_you_mean(name, TENSORS)}; it may have " + _known()
            )
    for name in ("names", "classes"):
        value = words.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise UserError(f"{where}: {name} must be a list of text")
        if value is not None and name == "classes" and len(set(value)) < len(value):
            raise UserError(f"{where}: classes has a name twice")
    return tensors, words


def _known() -> str:
    return ", ".join((*TENSORS, *WORDS))


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if is_broken(path):
        raise ValueError("its checksum is wrong")
    with safe_open(path, "pt") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - no mapping
        words: dict[str, Any] = {name: text for name, text in (f.metadata() or {}).items() if name in WORDS}
    return tensors, words | {name: json.loads(words[name]) for name in ("names", "classes") if name in words}


def _npz(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, words = {}, {}
    with open(path, "rb") as f, np.load(f, allow_pickle=False) as file:  # numpy leaves a damaged one open
        for name in file.files:
            array = file[name]
            if array.dtype.kind in "US":
                words[name] = array.astype(str).tolist()
            else:
                tensors[name] = torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)
    return tensors, words
