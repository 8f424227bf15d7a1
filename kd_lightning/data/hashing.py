"""Random numbers without a state: pure functions of integers, the same on every device, in any order and any worker."""

import torch
from torch import Tensor

MASK = 0xFFFFFFFF


def mix(x: Tensor) -> Tensor:
    """Scrambles 32-bit numbers held in int64 tensors of any shape; a bijection of [0, 2³²).

    Multiplication and xor-shift rounds; both factors are below 2³¹, so that no product leaves int64.
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & MASK
    x = (x ^ (x >> 15)) * 0x735A2D97 & MASK
    return x ^ (x >> 15)


def random_bits(*keys: int | Tensor) -> Tensor:
    """Uniform numbers in [0, 2³²) as int64, one per element of the broadcast `keys` (integers of at most 32 bits).

    Numbers come before tensors; the result is on the device of the last key.
    """
    state = torch.zeros((), dtype=torch.int64)
    for key in keys:
        key = torch.as_tensor(key, dtype=torch.int64)
        state = mix(mix(state.to(key.device) + 0x3C6EF372 & MASK) ^ (key & MASK))
    return state
