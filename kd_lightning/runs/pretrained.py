"""The resolver `as_teacher` of conf/data/image_folder.yaml: which students of photos start pretrained."""

from typing import Any

from omegaconf import ListConfig, OmegaConf


def as_teacher(weights: Any, student: str, image_size: int) -> bool:
    """Return whether a student of photos starts from ImageNet weights: as its teacher does, if it has some.

    Args:
        weights: `model.teacher_weights`, of one teacher or several.
        student: `model.student`.
        image_size: In pixels.
    """
    if "imagenet" not in (weights if isinstance(weights, ListConfig) else [weights]):
        return False
    from kd_lightning.models.create import is_built_in  # torch takes seconds to import

    return not is_built_in(student, image_size)


OmegaConf.register_new_resolver("as_teacher", as_teacher, replace=True)
