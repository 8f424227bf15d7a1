"""A finished run as the deployment commands take it: its deployed student and its data."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from kd_lightning import runs
from kd_lightning.evaluation.opened import open_data, overridden


@dataclass(frozen=True)
class Source:
    """What is made smaller, exported or measured."""

    path: Path
    run: runs.Run
    config: DictConfig
    """The run's own, with what was typed."""
    data: Any
    student: nn.Module
    about: dict[str, Any]

    def again(self) -> nn.Module:
        """Another copy of the student, to be changed."""
        return copy.deepcopy(self.student)

    def images(self, split: str, count: int) -> tuple[Tensor, Tensor]:
        """Normalized images `[N, 3, H, W]` and labels `[N]` of the first `count` samples of a split, spread over it."""
        source = self.data.splits[split]
        order = torch.linspace(0, len(source) - 1, min(count, len(source))).round().long()
        batches = list(source.batches(order, 256, self.data.seed, 0, torch.device("cpu")))
        return torch.cat([b.x for b in batches]).contiguous(), torch.cat([b.y for b in batches])


def open_source(path: Path, overrides: list[str]) -> Source:
    """Reads a finished run, its data prepared. Raises UserError."""
    run = runs.read(path)
    student, about = runs.load_student(path)
    config = overridden(run.config, overrides)
    return Source(path, run, config, open_data(path, run.config, config, about), student, about)
