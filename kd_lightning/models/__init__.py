"""Every net by one call: `create_model(name, num_classes, image_size=…)`. Knows neither Lightning nor Hydra."""

from kd_lightning.models.create import BUILT_IN, create_model, model_names
from kd_lightning.models.heads import Heads
from kd_lightning.models.layout import head, stages
from kd_lightning.models.size import count_macs, count_parameters
