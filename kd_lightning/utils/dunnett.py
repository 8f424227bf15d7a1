"""Dunnett's correction for several settings that are compared with one baseline (JASA 50, 1955)."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from kd_lightning.utils.statistics import SIGNIFICANT

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


def any_beyond(z: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Return for each z the probability that any of the correlated standard normals is beyond ±z (Dunnett).

    Normal number i is `shared[i] · u + √(1 − shared[i]²) · e_i`, so that one integral over u is enough.
    """
    center, scale = shared[:, None] * _NODES, np.sqrt(1 - shared**2)[:, None]
    z = np.atleast_1d(z)[:, None, None]
    within = ndtr((z - center) / scale) - ndtr((-z - center) / scale)
    return np.clip(1 - within.prod(1) @ _WEIGHTS, 0, 1)


def critical(shared: np.ndarray) -> float:
    return float(brentq(lambda z: float(any_beyond(np.array([z]), shared)[0]) - SIGNIFICANT, 1.0, 8.0, xtol=1e-6))
