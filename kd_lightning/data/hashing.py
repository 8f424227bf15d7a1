"""Random numbers without a state: pure functions of integers, the same on every device, in any order and any worker."""

from typing import Any, TypeVar, overload

from torch import Tensor

MASK = 0xFFFFFFFF
Number = TypeVar("Number", int, Tensor, Any)


def mix(x: Number) -> Number:
    """Scramble 32-bit numbers, Python's or those in an int64 tensor of any shape; a bijection of [0, 2³²).

    Multiplication and xor-shift rounds; both factors are below 2³¹, so that no product leaves int64.
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & MASK
    x = (x ^ (x >> 15)) * 0x735A2D97 & MASK
    return x ^ (x >> 15)


@overload
def random_bits(*keys: int) -> int: ...  # type: ignore[overload-overlap]
@overload
def random_bits(*keys: int | Tensor) -> Tensor: ...
def random_bits(*keys: int | Tensor) -> Any:
    """Return uniform numbers in [0, 2³²), one per element of the broadcast `keys` (integers of at most 32 bits).

    Returns:
        int64 on the device of the tensors among the keys; a Python number if there is none. Python's keys are hashed
        on the host, so that no device waits for them.
    """
    state: Any = 0
    for key in keys:
        state = mix(mix(state + 0x3C6EF372 & MASK) ^ (key & MASK))
    return state
