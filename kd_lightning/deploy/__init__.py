"""Compression of finished students, their export to files, and measurements of both.

`pruned`, `sparse` and `int8` are models like any other: `model.student=kd_lightning.deploy.int8`, with the name of the
model inside among their arguments.
"""

from kd_lightning.deploy.prune import pruned
from kd_lightning.deploy.quantization.quantize import int8
from kd_lightning.deploy.sparsity import sparse
