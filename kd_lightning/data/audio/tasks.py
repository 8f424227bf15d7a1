"""The data sets of recordings with labels for several tasks."""

from kd_lightning.data.audio.audio_folder import AudioFolderDataModule
from kd_lightning.data.tasks import WithTasks


class AudioFolderTasks(WithTasks, AudioFolderDataModule):
    """Recordings in folders with labels for several tasks."""
