"""Three loops around the same training: this project's, a hand-written one, and the textbook's."""

import time
import uuid
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from benchmarks.setting import CLASSES, Setting
from benchmarks.timing import wait
from kd_lightning.data.images.cifar import CIFAR10DataModule
from kd_lightning.distiller import Distiller
from kd_lightning.models import create_model
from kd_lightning.training.build import build_experiment
from kd_lightning.training.trainer import build_trainer

WARM_UP = 2  # steps of an epoch that are not timed
MEAN, STD = CIFAR10DataModule.default_normalize


class Clock(pl.Callback):
    """Seconds per image between the end of the warm-up steps and the end of the epoch's last; waits only there."""

    def __init__(self) -> None:
        self.seconds = self.images = self.loss = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == WARM_UP - 1 or trainer.is_last_batch:
            wait(pl_module.device)
        if batch_idx == WARM_UP - 1:
            self.since = time.perf_counter()
        elif batch_idx >= WARM_UP:
            self.images += len(batch.y)
        if trainer.is_last_batch:
            self.seconds, self.loss = time.perf_counter() - self.since, float(outputs["loss"])


def ours(setting: Setting, cfg: DictConfig, teacher: Any, compiled: bool = False) -> Clock:
    """One epoch of this project with all that it logs by default."""
    parts = build_experiment(cfg)
    distiller = Distiller(
        parts.student,
        teacher,
        parts.loss,
        num_classes=CLASSES,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
    )
    distiller.log_terms = False
    if compiled:
        distiller.compile_networks(parts.data.batch_size)
    trainer, _ = build_trainer(parts.trainer, setting.folder / uuid.uuid4().hex, has_val=False)
    clock = Clock()
    trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    trainer.fit(distiller, parts.data)
    return clock


def by_hand(setting: Setting, cfg: DictConfig, logits: Tensor) -> tuple[float, float]:
    """The same epoch in plain PyTorch, given the teacher's answers `[N, C]`; returns seconds per image, last loss."""
    parts = build_experiment(cfg)
    student = parts.student.to(setting.device)
    optimizer = parts.optimizer(student.parameters())
    loader = parts.data.train_dataloader()
    batches = loader.source.batches(loader.order(0), setting.batch, parts.data.view_seed, 0, setting.device)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: parts.schedule(step / len(loader), 1))
    alpha, temperature = float(cfg.loss.alpha), float(cfg.loss.temperature)
    logits, images, since, loss = logits.to(setting.device), 0, 0.0, torch.zeros(())
    for i, batch in enumerate(batches):
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.precision == "bf16-mixed"):
            said, told = student(batch.x).float(), logits[batch.index].float()
            kl = F.kl_div((said / temperature).log_softmax(1), (told / temperature).softmax(1), reduction="batchmean")
            loss = F.cross_entropy(said, batch.y) + alpha * temperature**2 * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        images += len(batch.y) * (i >= WARM_UP)
        if i == WARM_UP - 1:
            wait(setting.device)
            since = time.perf_counter()
    wait(setting.device)
    return (time.perf_counter() - since) / images, loss.item()


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's CIFAR10 serves them: an array each, made a PIL image and transformed one by one."""

    def __init__(self, images: Tensor) -> None:
        self.arrays = images.numpy()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[i])), i % CLASSES


def torchvision_loader(setting: Setting, workers: int, batches: int | None = None) -> DataLoader[Any]:
    """Shuffled batches of random images: an epoch, or as many as are asked for."""
    pictures = Pictures(torch.randint(256, (setting.images, 32, 32, 3)).to(torch.uint8))
    sampler = RandomSampler(pictures, num_samples=None if batches is None else batches * setting.batch)
    return DataLoader(pictures, setting.batch, sampler=sampler, num_workers=workers)


def textbook(setting: Setting) -> float:
    """The loop of a tutorial: two workers, float32, live teacher, `loss.item()` each step; seconds per image."""
    teacher = create_model(setting.teacher, CLASSES, image_size=32).to(setting.device).eval()
    student: nn.Module = create_model(setting.student, CLASSES, image_size=32).to(setting.device).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    temperature, alpha, images, since, now, total = 2.0, 0.5, 0, 0.0, 0.0, 0.0
    for i, (x, y) in enumerate(torchvision_loader(setting, workers=2)):
        x, y = x.to(setting.device), y.to(setting.device)
        with torch.no_grad():
            told = teacher(x)
        said = student(x)
        soft = F.kl_div(F.log_softmax(said / temperature, 1), F.softmax(told / temperature, 1), reduction="batchmean")
        loss = F.cross_entropy(said, y) + alpha * temperature**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()  # waits
        now = time.perf_counter()  # the loop's end also stops the workers, which takes its time
        images += len(y) * (i >= WARM_UP)
        if i == WARM_UP - 1:
            since = now
    return (now - since) / images
