"""Data sets as LightningDataModules whose loaders yield `Batch`; `DataModule` says what they share."""

from kd_lightning.data.augment import Augment
from kd_lightning.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from kd_lightning.data.digits import DigitsDataModule
from kd_lightning.data.image_folder import ImageFolderDataModule
from kd_lightning.data.loader import Loader
from kd_lightning.data.module import DataModule
from kd_lightning.data.normalize import Normalize
from kd_lightning.data.resident import ResidentImages
from kd_lightning.data.resident_module import ResidentDataModule

__all__ = [
    "Augment",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DataModule",
    "DigitsDataModule",
    "ImageFolderDataModule",
    "Loader",
    "Normalize",
    "ResidentDataModule",
    "ResidentImages",
]
