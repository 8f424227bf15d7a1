"""Agreement of a file with the student that it was written from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Largest difference of a logit, and least share of samples with the same class. Integer kernels round some activations
# to the neighbouring level, and float16 has 11 bits: there the classes are what counts.
TOLERANCE = {"fp32": (1e-4, 0.999), "fp16": (0.1, 0.99), "int8": (float("inf"), 0.97)}


@dataclass(frozen=True)
class Parity:
    """Agreement on `samples` real samples."""

    samples: int
    difference: float
    """Largest absolute difference of a logit."""
    mean_difference: float
    agreement: float
    """Share of samples for which both name the same class, in [0, 1]."""

    def within(self, difference: float, agreement: float) -> bool:
        """Return whether neither limit is passed; a NaN passes both."""
        return self.difference <= difference and self.agreement >= agreement

    def __str__(self) -> str:
        return (
            f"on {self.samples} test samples: largest difference of a logit {self.difference:.1e} "
            f"(mean {self.mean_difference:.1e}), same class for {self.agreement:.2%}"
        )


def compare(file: Any, student: Any) -> Parity:
    """Return the agreement of two sets of logits `[N, C]` of the same samples; of several tasks, the worst one."""
    if isinstance(student, Mapping):
        each = [compare(file[task], z) for task, z in student.items()]
        differences = [one.difference for one in each]
        mean = sum(one.mean_difference for one in each) / len(each)
        return Parity(each[0].samples, max(differences), mean, min(one.agreement for one in each))
    gap = (file.double() - student.double()).abs()
    same = (file.argmax(1) == student.argmax(1)).float().mean()
    return Parity(len(file), float(torch.nan_to_num(gap, float("inf")).max()), float(gap.mean()), float(same))
