"""Answers that were bought or computed once, in a file, as a teacher: no network is run.

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
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kd_lightning.data.module import DataModule
from kd_lightning.types import Batch, Outputs, Teacher
from kd_lightning.utils.checks import UserError, did_you_mean

NAME = "stored"
"""`model.teacher` of such a teacher."""
SUFFIXES = (".safetensors", ".npz")
TENSORS = ("logits", "probabilities", "indices", "tail", "index")
WORDS = ("names", "classes", "fingerprint", "teacher")
TOLERANCE = 0.01  # of a sum of probabilities: they may be rounded, or of half precision
MOST_BYTES = 256 * 2**20  # of answers on the device


class StoredAnswers(nn.Module):
    """The answers to all training samples, as tensors. A module, so that it stands where a teacher's network would.

    Args:
        values: Logits `[N, C]`, or `[N, k]` with `indices`.
        classes: Number of classes in the file, C.
        indices: Classes of the k logits, `[N, k]`.
        tail: ln of the sum of exp of the other C - k logits, `[N]`.
        order: `order[c]` is the file's class for class c of the data; None for the same order.
    """

    values: Tensor

    def __init__(
        self,
        values: Tensor,
        classes: int,
        indices: Tensor | None = None,
        tail: Tensor | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.indices: Tensor | None
        self.tail: Tensor | None
        self.order: Tensor | None
        self.register_buffer("values", values)
        self.register_buffer("indices", indices)
        self.register_buffer("tail", tail)
        self.register_buffer("order", None if order is None else torch.tensor(list(order)))

    def of(self, index: Tensor) -> Tensor:
        """Return the logits `[B, C]` of the samples `index` `[B]`, which is where the answers are."""
        logits = self.values[index].float()
        if self.indices is not None:
            rest = self.classes - logits.shape[1]
            every = logits.new_zeros(len(logits), self.classes)
            if self.tail is not None and rest:
                every += (self.tail[index].float() - math.log(rest))[:, None]
            logits = every.scatter_(1, self.indices[index], logits)
        return logits if self.order is None else logits.index_select(1, self.order)

    def forward(self, x: Any) -> Tensor:
        raise UserError(
            "model.teacher=stored holds answers to the training samples and no network, so it has no layers and "
            "answers nothing else; use a loss of logits such as loss=kd"
        )


class StoredTeacher(Teacher):
    """Answers training batches by the index of their samples, whatever their view; has none for other samples."""

    members: Sequence[Teacher] = ()
    fixed = True
    evaluates = False

    def __init__(self, answers: StoredAnswers) -> None:
        self.answers = answers
        self.models: list[nn.Module] = []
        self._moves = sum(tensor.nbytes for tensor in answers.buffers()) <= MOST_BYTES

    def __call__(self, batch: Batch) -> Outputs:
        if batch.mixed is not None:
            raise UserError(
                "model.teacher=stored has no answer to mixed pictures; leave out data.augment.mixup and cutmix"
            )
        return Outputs(self.answers.of(batch.index.to(self.answers.values.device)).to(batch.y.device))

    def evaluate(self, batch: Batch) -> Outputs:
        """Raise UserError: there are answers to training samples only."""
        raise UserError("model.teacher=stored has answers to training samples only; it has no scores")

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: its answers do not depend on the epoch."""

    def compile(self, batch_size: int) -> None:
        """Do nothing: there is no network."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        if self._moves:
            self.answers._apply(fn)


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
    rows = _rows(tensors, words, data, where)
    values, indices, tail = _answers(tensors, count, where)
    if rows is not None:
        values = values[rows]
        indices, tail = (None if part is None else part[rows] for part in (indices, tail))
    return StoredAnswers(values, count, indices, tail, order)


def write_stored(
    path: Path, logits: Tensor, facts: Mapping[str, Any], top_k: int | None = None, suffix: str | None = None
) -> None:
    """Write logits `[N, C]` of all training samples, in their order.

    Args:
        path: A `.safetensors` or `.npz` file.
        logits: The answers.
        facts: What is known beside them: some of `WORDS`.
        top_k: Number of the largest logits to keep; None for all.
        suffix: Kind of the file, where `path` does not end with it.
    """
    logits = logits.float().cpu()
    tensors = {"logits": logits.contiguous()}
    if top_k is not None and top_k < logits.shape[1]:
        top = logits.topk(top_k)
        others = logits.scatter(1, top.indices, -torch.inf)
        tensors = {"logits": top.values.contiguous(), "indices": top.indices.int(), "tail": others.logsumexp(1)}
    if (suffix or path.suffix) == ".npz":
        with open(path, "wb") as f:  # numpy would append its own suffix to another name
            arrays: Any = {name: tensor.numpy() for name, tensor in tensors.items()}
            arrays |= {name: np.array(value) for name, value in facts.items()}
            np.savez(f, **arrays)
        return
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    save_file(tensors, path, metadata=words)


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


def _rows(tensors: Mapping[str, Tensor], words: Mapping[str, Any], data: DataModule, where: str) -> Tensor | None:
    """Return the row of each training sample `[N]`, None if they are in order. Raises UserError if one has not one."""
    n = data.sizes["train"]
    count = len(next(tensors[name] for name in ("logits", "probabilities") if name in tensors))
    known = words.get("fingerprint")
    if known is not None and known != data.samples_fingerprint():
        raise UserError(
            f"{where} is of other training samples than those of {data.name}: its fingerprint is {known}, the data's "
            f"{data.samples_fingerprint()}; data.split_seed, val_size and train_size decide them"
        )
    index, names = tensors.get("index"), words.get("names")
    if names is not None:
        return _by_name(names, count, data, where)
    if index is None:
        if count != n:
            raise UserError(f"{where} has answers to {count:,} samples, and {data.name} trains on {n:,}")
        return None
    if index.shape != (count,) or index.is_floating_point():
        raise UserError(f"{where}: index must be whole numbers [{count}], one for each answer, got {list(index.shape)}")
    index = index.long()
    if outside := index[(index < 0) | (index >= n)].tolist():
        raise UserError(f"{where}: index {outside[0]} is none of the {n:,} training samples of {data.name}")
    seen = torch.bincount(index, minlength=n)
    if (twice := (seen > 1).nonzero().flatten()).numel():
        raise UserError(f"{where}: index {int(twice[0])} comes {int(seen[twice[0]])} times")
    if (lacks := (seen == 0).nonzero().flatten()).numel():
        raise UserError(f"{where} lacks an answer to sample {int(lacks[0])}{_more(lacks.numel())} of {n:,}")
    return index.argsort()


def _by_name(names: Sequence[str], count: int, data: DataModule, where: str) -> Tensor:
    wanted = data.sample_names()
    if wanted is None:
        raise UserError(f"{where} has file names, and the samples of {data.name} are no files; give index")
    if len(names) != count:
        raise UserError(f"{where} has {len(names):,} names for {count:,} answers")
    row = {name: i for i, name in enumerate(names)}
    if len(row) < len(names):
        twice = next(name for i, name in enumerate(names) if row[name] != i)
        raise UserError(f"{where}: the name {twice!r} comes more than once")
    if lacks := [name for name in wanted if name not in row]:
        raise UserError(f"{where} lacks an answer to {lacks[0]!r}{_more(len(lacks))} of {len(wanted):,}")
    return torch.tensor([row[name] for name in wanted])


def _more(count: int) -> str:
    return f" and {count - 1:,} more" if count > 1 else ""


def _answers(tensors: Mapping[str, Tensor], classes: int, where: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return logits, classes of the top k, and tail. Raises UserError if they do not fit each other or the data."""
    kind = "logits" if "logits" in tensors else "probabilities"
    values, indices, tail = tensors[kind], tensors.get("indices"), tensors.get("tail")
    if values.ndim != 2 or not values.is_floating_point():
        raise UserError(f"{where}: {kind} must be numbers [N, classes], got {values.dtype} {list(values.shape)}")
    if indices is None:
        if values.shape[1] != classes:
            raise UserError(
                f"{where} has {values.shape[1]} classes, and the data has {classes}; for the k largest of "
                "each sample give indices, for other classes model.teacher_classes"
            )
        if tail is not None:
            raise UserError(f"{where} has a tail without indices: all classes are there")
    else:
        indices = _checked_indices(indices, values, classes, where)
    _finite(values, kind, where)
    left = indices is not None and values.shape[1] < classes
    if kind == "probabilities":
        return _of_probabilities(values.float(), indices, tail, left, where)
    if left and tail is None:
        total = values.float().exp().sum(1)
        if (much := (total > 1 + TOLERANCE).nonzero()).numel():
            raise UserError(
                f"{where} has no tail, and logits of sample {int(much[0])} are no log-probabilities (the sum of exp is "
                f"{float(total[much[0]]):.3g}); give log-probabilities, or tail: ln of the sum of exp of the others"
            )
        tail = _log(1 - total)
    if tail is not None:
        if tail.shape != (len(values),) or not tail.is_floating_point():
            raise UserError(f"{where}: tail must be one number for each of {len(values):,} samples")
        _finite(tail[:, None], "tail", where)
    return values, indices, tail


def _of_probabilities(
    p: Tensor, indices: Tensor | None, tail: Tensor | None, left: bool, where: str
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if tail is not None:
        raise UserError(f"{where}: tail is for logits; of probabilities it is what they lack to 1")
    if (p < 0).any():
        raise UserError(f"{where}: probabilities of sample {int((p < 0).any(1).nonzero()[0])} are negative")
    total = p.sum(1)
    wrong = (total > 1 + TOLERANCE) if left else (total - 1).abs() > TOLERANCE
    if (rows := wrong.nonzero()).numel():
        raise UserError(
            f"{where}: probabilities of sample {int(rows[0])} sum to {float(total[rows[0]]):.3g}, not to 1"
            f"{_more(rows.numel())}"
        )
    return _log(p), indices, _log(1 - total) if left else None


def _log(p: Tensor) -> Tensor:
    """Return ln p; of 0 the ln of the least number of float32, -87, which no temperature in use brings back."""
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()


def _checked_indices(indices: Tensor, values: Tensor, classes: int, where: str) -> Tensor:
    if indices.shape != values.shape or indices.is_floating_point():
        raise UserError(
            f"{where}: indices must be whole numbers {list(values.shape)} as the answers, got {list(indices.shape)}"
        )
    indices = indices.long()
    if (outside := indices[(indices < 0) | (indices >= classes)]).numel():
        raise UserError(f"{where}: indices has class {int(outside[0])}, and the data has {classes} classes, from 0")
    ordered = indices.sort(1).values
    if (twice := (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero()).numel():
        raise UserError(f"{where}: indices of sample {int(twice[0])} name a class twice")
    return indices


def _finite(values: Tensor, name: str, where: str) -> None:
    if (broken := (~values.isfinite()).any(1).nonzero()).numel():
        raise UserError(f"{where}: {name} of row {int(broken[0])}{_more(broken.numel())} are nan or infinite")
