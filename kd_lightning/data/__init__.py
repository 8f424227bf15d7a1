"""Data sets as LightningDataModules whose loaders yield `Batch`; `DataModule` is their base."""

from kd_lightning.data.audio.audio_folder import AudioFolderDataModule
from kd_lightning.data.audio.module import AudioDataModule
from kd_lightning.data.audio.speech_digits import SpeechDigitsDataModule
from kd_lightning.data.audio.tasks import AudioFolderTasks
from kd_lightning.data.images.augment import Augment
from kd_lightning.data.images.cifar import CIFAR10DataModule, CIFAR100DataModule
from kd_lightning.data.images.decode import Preprocess, decode
from kd_lightning.data.images.digits import DigitsDataModule
from kd_lightning.data.images.image_folder import ImageFolderDataModule
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.images.resident import ResidentImages
from kd_lightning.data.images.resident_module import ResidentDataModule
from kd_lightning.data.images.tasks import CIFAR10Tasks, CIFAR100Tasks, DigitsTasks, ImageFolderTasks
from kd_lightning.data.loader import Loader
from kd_lightning.data.module import DataModule
from kd_lightning.data.tasks import WithTasks
from kd_lightning.data.text.module import TextDataModule
from kd_lightning.data.text.sst2 import SST2DataModule
from kd_lightning.data.text.tasks import TextFilesTasks
from kd_lightning.data.text.text_files import TextFilesDataModule
