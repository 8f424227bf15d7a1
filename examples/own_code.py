"""Distill with networks, data and a Trainer of your own, without Hydra: `python examples/own_code.py`."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from kd_lightning import CE, KD, Distiller

lightning.seed_everything(0, verbose=False)
x, y = (torch.tensor(values) for values in load_digits(return_X_y=True))
digits = TensorDataset(x.float() / 16, y)
train, test = random_split(digits, [1437, 360], torch.Generator().manual_seed(0))


def make_net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def fit(distiller: Distiller) -> None:
    trainer = lightning.Trainer(max_epochs=40, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(distiller, DataLoader(train, batch_size=64, shuffle=True))
    trainer.test(distiller, DataLoader(test, batch_size=360))


teacher, student = make_net(512), make_net(16)
fit(Distiller(teacher, None, CE(), num_classes=10))
fit(Distiller(student, teacher, KD(temperature=4, alpha=0.9), num_classes=10))
