"""Data sets as LightningDataModules whose loaders yield `Batch`; `DataModule` says what they share."""

from kd_lightning.data.augment import Augment
from kd_lightning.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from kd_lightning.data.digits import DigitsDataModule
from kd_lightning.data.loader import Loader
from kd_lightning.data.module import DataModule, ResidentDataModule
from kd_lightning.data.normalize import Normalize
from kd_lightning.data.resident import ResidentImages

__all__ = [
    "Augment",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DataModule",
    "DigitsDataModule",
    "Loader",
    "Normalize",
    "ResidentDataModule",
    "ResidentImages",
]
