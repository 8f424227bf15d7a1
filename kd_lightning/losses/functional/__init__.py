"""Formulas of distillation as pure functions of tensors: the student's first, the teacher's second."""

from kd_lightning.losses.functional.boundaries import (
    activation_boundary,
    ofd,
    ofd_margin,
)
from kd_lightning.losses.functional.contrast import (
    crd,
    crd_log_z,
    crd_update,
)
from kd_lightning.losses.functional.divergences import (
    DIVERGENCES,
    divergence,
    jensen_shannon,
    reverse_kl,
    total_variation,
)
from kd_lightning.losses.functional.features import (
    attention,
    factor,
    fsp,
    hierarchical_context,
    hint,
    nst,
    vid,
)
from kd_lightning.losses.functional.fusion import (
    fuse_logits,
    fuse_probabilities,
    mean_loss,
)
from kd_lightning.losses.functional.logit_relations import (
    batch_correlation,
    class_correlation,
    ctkd_temperature,
    dist,
    standardize,
)
from kd_lightning.losses.functional.logits import (
    dkd,
    hard,
    kd,
    nkd,
    rld,
    teacher_free,
    wsld,
)
from kd_lightning.losses.functional.relations import (
    correlation,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity,
)
