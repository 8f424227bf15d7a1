"""The data sets of images with labels for several tasks."""

from kd_lightning.data.images.cifar import CIFAR10DataModule, CIFAR100DataModule
from kd_lightning.data.images.digits import DigitsDataModule
from kd_lightning.data.images.image_folder import ImageFolderDataModule
from kd_lightning.data.tasks import WithTasks


class CIFAR10Tasks(WithTasks, CIFAR10DataModule):
    """CIFAR-10 with labels for several tasks."""


class CIFAR100Tasks(WithTasks, CIFAR100DataModule):
    """CIFAR-100 with labels for several tasks."""


class DigitsTasks(WithTasks, DigitsDataModule):
    """Digits with labels for several tasks."""


class ImageFolderTasks(WithTasks, ImageFolderDataModule):
    """Images in folders with labels for several tasks."""
