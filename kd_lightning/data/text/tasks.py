"""The data sets of sentences with labels for several tasks."""

from kd_lightning.data.tasks import WithTasks
from kd_lightning.data.text.text_files import TextFilesDataModule


class TextFilesTasks(WithTasks, TextFilesDataModule):
    """Sentences of your own with labels for several tasks."""
