"""Makes pictures/divergences.png of guide.md: a student that is too simple for its teacher, under each divergence.

The teacher finds two of twelve classes likely. The student's probabilities are a bell, of which only middle and width
are free: it cannot have two peaks. It is fitted from several starts; the best one is shown.
"""

import itertools
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from kd_lightning.losses.functional.divergences import divergence

CLASSES = torch.arange(12.0)
SETTINGS = {
    "forward_kl": ("forward_kl", 0.5),
    "jensen_shannon, beta 0.1": ("jensen_shannon", 0.1),
    "jensen_shannon, beta 0.5": ("jensen_shannon", 0.5),
    "jensen_shannon, beta 0.9": ("jensen_shannon", 0.9),
    "reverse_kl": ("reverse_kl", 0.5),
    "total_variation": ("total_variation", 0.5),
}
TEACHER, STUDENT = "#cccccc", "#1f77b4"


def bell(middle: Tensor, log_width: Tensor) -> Tensor:
    """Return the student's logits `[1, C]`."""
    return -(((CLASSES - middle) / log_width.exp()) ** 2)[None] / 2


def teacher() -> Tensor:
    """Return the teacher's logits `[1, C]`: a high peak at class 2, and a lower one at class 8."""
    p = 0.65 * bell(torch.tensor(2.0), torch.tensor(-0.1)).softmax(1)
    p = p + 0.35 * bell(torch.tensor(8.0), torch.tensor(0.1)).softmax(1)
    return p.log()


def fitted(kind: str, beta: float) -> Tensor:
    """Return the probabilities `[C]` of the bell that is nearest to the teacher."""
    best, least = None, float("inf")
    for start in itertools.product((2.0, 5.0, 8.0), (0.0, 1.0)):
        values = [torch.tensor(value, requires_grad=True) for value in start]
        optimizer = torch.optim.Adam(values, lr=0.05)
        for _ in range(400):
            loss = divergence(bell(*values), teacher(), 1.0, kind, beta)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if float(loss.detach()) < least:
            best, least = bell(*values).detach().softmax(1)[0], float(loss.detach())
    assert best is not None
    return best


def main() -> None:
    """Write the picture."""
    figure = Figure(figsize=(13, 2.6), layout="constrained")
    p = teacher().softmax(1)[0]
    for axes, (title, how) in zip(figure.subplots(1, len(SETTINGS), sharey=True), SETTINGS.items(), strict=True):
        axes.bar(CLASSES, p, color=TEACHER, label="teacher")
        axes.plot(CLASSES, fitted(*how), "o-", color=STUDENT, markersize=3, label="student")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("class")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    figure.savefig(Path(__file__).parent / "pictures" / "divergences.png", dpi=110)


if __name__ == "__main__":
    main()
