"""Train a student with a loss of your own and a plain Lightning Trainer: `python examples/own_loss.py`."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kd_lightning import Distiller
from kd_lightning.losses import CE, Method
from kd_lightning.types import Batch, Outputs


class LogitMSE(Method):
    """Mean squared error of the logits, each centred (only differences of logits matter)."""

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = (o.logits - o.logits.mean(1, keepdim=True) for o in (student, teacher))
        return nn.functional.mse_loss(s, t)


def make_net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


x, y = (torch.tensor(a) for a in load_digits(return_X_y=True))
data = TensorDataset(x.float() / 16, y)
train, test = torch.utils.data.random_split(data, [1437, 360], torch.Generator().manual_seed(0))
teacher, student = make_net(256), make_net(16)


def fit(distiller: Distiller) -> None:
    trainer = pl.Trainer(max_epochs=30, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(distiller, DataLoader(train, batch_size=64, shuffle=True))
    trainer.test(distiller, DataLoader(test, batch_size=360))


fit(Distiller(teacher, None, CE(), num_classes=10))
fit(Distiller(student, teacher, LogitMSE(alpha=0.5), num_classes=10))
