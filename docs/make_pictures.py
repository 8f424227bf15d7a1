"""Makes the pictures of guide.md. `python docs/make_pictures.py` · scikit-learn's digits, no download, about a minute.

A resnet20 is trained as the teacher and a resnet8, for two epochs only, as a student that has much to learn.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from kd_lightning import runs
from kd_lightning.config import CONF_DIR
from kd_lightning.data import DigitsDataModule
from kd_lightning.losses.functional import kd
from kd_lightning.train import train
from kd_lightning.types import Batch

HERE = Path(__file__).parent / "pictures"
HARD, SOFT, RIGHT = "#888888", "#ff7f0e", "#1f77b4"
TEMPERATURES = (1, 2, 4, 8)


def trained(name: str, epochs: int, folder: Path) -> torch.nn.Module:
    """A model trained on the digits by the ordinary command's own function."""
    settings = [f"model.student={name}", f"trainer.max_epochs={epochs}", "data=digits", "loss=ce"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[*settings, "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"])
    train(cfg, folder / name)
    return runs.load_student(folder / name)[0]


def test_set() -> tuple[DigitsDataModule, Batch]:
    """The 360 test images as one batch."""
    data = DigitsDataModule(eval_batch_size=360)
    return data, next(iter(data.test_dataloader()))


def bars(axes: Any, p: Tensor, label: int, color: str, title: str) -> None:
    """A distribution over the ten digits; the label's bar is blue."""
    axes.bar(range(10), p.tolist(), color=[RIGHT if c == label else color for c in range(10)])
    axes.set_xticks(range(10))
    axes.set(ylim=(0, 1.02), title=title)


def telling(logits: Tensor, y: Tensor, count: int) -> list[int]:
    """Images, of different classes, whose label the teacher finds though it hesitates most."""
    p = logits.softmax(1)
    right = logits.argmax(1) == y
    order = (p.max(1).values + 2 * ~right).argsort().tolist()
    seen: dict[int, int] = {}
    for i in order:
        seen.setdefault(int(y[i]), i)
    return list(seen.values())[:count]


def labels_figure(data: DigitsDataModule, batch: Batch, logits: Tensor) -> Figure:
    """Rows: an image, its hard label, the teacher's soft label at T = 2."""
    chosen = telling(logits, batch.y, 4)
    figure = Figure(figsize=(8, 6.2), layout="constrained")
    cells = figure.subplots(4, 3, width_ratios=[1, 2, 2])
    for (picture, hard, soft), i in zip(cells, chosen, strict=True):
        y = int(batch.y[i])
        picture.imshow(image(data, batch, i), cmap="gray")
        picture.axis("off")
        bars(hard, F.one_hot(batch.y[i], 10), y, HARD, f"hard label: {y}")
        bars(soft, (logits[i] / 2).softmax(0), y, SOFT, "the teacher's soft label, T = 2")
    return figure


def temperature_figure(data: DigitsDataModule, batch: Batch, logits: Tensor) -> Figure:
    """An image that the teacher is rather sure of, and its distribution at each temperature."""
    wrong = logits.argmax(1) != batch.y
    i = int(((logits.softmax(1).max(1).values - 0.97).abs() + 1.0 * wrong).argmin())  # sure, but not blindly
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    picture, *panels = figure.subplots(1, 5, width_ratios=[0.8, 1, 1, 1, 1])
    picture.imshow(image(data, batch, i), cmap="gray")
    picture.set_title(f"a {int(batch.y[i])}")
    picture.axis("off")
    for axes, t in zip(panels, TEMPERATURES, strict=True):
        p = (logits[i] / t).softmax(0)
        entropy = -float((p * p.log()).sum())
        bars(axes, p, int(batch.y[i]), SOFT, f"T = {t}: {p.max():.0%}, {entropy:.2f} nats")
        if t > 1:
            axes.set_yticklabels([])
    return figure


def gradients_figure(student: Tensor, teacher: Tensor, y: Tensor) -> Figure:
    """Mean length of each term's gradient by the student's logits, over T."""
    steps = torch.logspace(0, 4, 25, base=2).tolist()

    def length(loss: Tensor) -> float:
        (gradient,) = torch.autograd.grad(loss, z)
        return float(gradient.norm(dim=1).mean()) * len(y)

    z = student.clone().requires_grad_()
    ce = length(F.cross_entropy(z, y))
    scaled = [length(kd(z, teacher, t)) for t in steps]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(ce, color=HARD, label="cross-entropy with the labels")
    axes.plot(steps, scaled, color=SOFT, label="T² · KL(teacher ‖ student)")
    axes.plot(steps, [g / t**2 for g, t in zip(scaled, steps, strict=True)], "--", color=SOFT, label="KL without T²")
    axes.set(xscale="log", yscale="log", xlabel="temperature T", ylabel="mean length of the gradient\nby the logits")
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def image(data: DigitsDataModule, batch: Batch, i: int) -> Tensor:
    """Grey values `[8, 8]`."""
    return batch.x[i, 0] * data.normalize.std[0] + data.normalize.mean[0]


def main() -> None:
    data, batch = test_set()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        with torch.enable_grad():
            models = [trained("resnet20", 20, Path(folder)), trained("resnet8", 2, Path(folder))]
        teacher, student = (model(batch.x) for model in models)
    HERE.mkdir(exist_ok=True)
    drawn = {
        "labels": labels_figure(data, batch, teacher),
        "temperature": temperature_figure(data, batch, teacher),
        "gradients": gradients_figure(student, teacher, batch.y),
    }
    for name, figure in drawn.items():
        figure.savefig(HERE / f"{name}.png", dpi=90)
        print(HERE / f"{name}.png")


if __name__ == "__main__":
    main()
