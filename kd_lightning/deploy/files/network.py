"""The network of a file: the student between the inputs and outputs that its card declares."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kd_lightning.data.audio.logmel import LogMel, MatrixLogMel
from kd_lightning.data.images.decode import Preprocess
from kd_lightning.deploy.files.card import PIXELS, WAVES
from kd_lightning.models.hooks import logits_of
from kd_lightning.types import StudentCard, each_of, part, whole


class Network(nn.Module):
    """From inputs, as the file's `card` describes them, to float32 logits `[B, C]`, by task if there are several."""

    scale: Tensor
    shift: Tensor

    def __init__(self, student: nn.Module, card: StudentCard):
        super().__init__()
        self.student = student
        self.pixels = card.extra["input"] == PIXELS
        self.fp16 = card.extra["precision"] == "fp16"
        self.tasks = tuple(card.tasks)
        divided_by = each_of(card.extra.get("divided_by", {}), self.tasks, 1.0)
        self.temperatures = {task: float(t) for task, t in divided_by.items()}
        self.front = MatrixLogMel(LogMel.parse(card.preprocessing)) if card.extra["input"] == WAVES else None
        if self.fp16:
            student.half()
        if self.pixels:
            mean, std = (torch.tensor(values) for values in Preprocess.parse(card.preprocessing).normalize)
            self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
            self.register_buffer("shift", (-mean / std).reshape(3, 1, 1))

    def forward(self, x: Any) -> Any:
        if self.pixels:
            x = x.permute(0, 3, 1, 2).float() * self.scale + self.shift
        if self.front is not None:
            x = self.front(x)
        if self.fp16:
            x = tree_map(lambda t: t.half() if t.is_floating_point() else t, x)
        said = logits_of(self.student, x)
        logits = {task: self._calibrated(part(said, task), task) for task in self.tasks}
        return whole(logits)

    def _calibrated(self, logits: Tensor, task: str) -> Tensor:
        temperature = self.temperatures[task]
        return logits.float() if temperature == 1 else logits.float() / temperature
