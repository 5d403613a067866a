"""Numbers by counter: random numbers that are a function of (key, place, index) and nothing else.

They replace generators inside heads: the same under `vmap` for one replica or five, in any order
of calls, on any device. The hash is integer arithmetic modulo 2^64, so it is exact everywhere.
"""

import zlib
from collections.abc import Sequence
from math import pi, prod

import torch
from torch import Tensor

# Odd constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def key(seed: Tensor | int, *counters: Tensor | int) -> Tensor:
    """A key that differs wherever a seed or a counter (epoch, step) differs.

    Args:
        seed: () or (R,) int64, one a replica.
        counters: what else the numbers depend on, as whole numbers; a tensor of them gives as
            many keys.

    Returns:
        int64 of the shape of `seed`, broadcast with the counters.
    """
    mixed = _mix(torch.as_tensor(seed, dtype=torch.int64) * 1)
    for counter in counters:
        step = counter * _GOLDEN if isinstance(counter, Tensor) else _wrap(counter * _GOLDEN)
        mixed = _mix(mixed + step)
    return mixed


def uniform(key: Tensor, place: str | int, shape: Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-24, so float32 and float64 hold the same ones.

    Args:
        key: () int64, such as `batch.numbers`; under `vmap` one a replica.
        place: what the numbers are for; two places of one key are independent.
        shape: shape of the result, known without looking at data.

    Returns:
        float32 of that shape, on the key's device.
    """
    return (_bits(key, place, shape) >> 39).to(torch.float32) * 2.0**-24


def normal(key: Tensor, place: str | int, shape: Sequence[int]) -> Tensor:
    """Normal numbers, mean 0 and deviation 1, from two uniform ones each (Box and Muller).

    Args:
        key: as for `uniform`.
        place: as for `uniform`.
        shape: of the result.

    Returns:
        float32 of that shape.
    """
    u = uniform(key, place, (2, *shape))
    return (-2 * torch.log1p(-u[0])).sqrt() * torch.cos(2 * pi * u[1])


def permutation(key: Tensor, place: str | int, count: int) -> Tensor:
    """The numbers 0 … count - 1 in an order that is a function of (key, place): () → (count,)."""
    return torch.argsort(_bits(key, place, (count,)), stable=True)


def dropout(x: Tensor, p: float, key: Tensor, place: str | int, *, training: bool) -> Tensor:
    """Zero each element with chance p and divide the rest by 1 - p, as `nn.Dropout` does.

    Args:
        x: any shape.
        p: chance of being zeroed, 0 ≤ p < 1.
        key: `batch.numbers`.
        place: a name that no other dropout of the same head has.
        training: the module's `self.training`; without it nothing happens.
    """
    if not training or p == 0:
        return x
    kept = uniform(key, place, x.shape) >= p
    return torch.where(kept, x / (1 - p), 0)


def _bits(key: Tensor, place: str | int, shape: Sequence[int]) -> Tensor:
    """63 bits an element, so never negative; the top ones are the good ones."""
    number = zlib.crc32(place.encode()) if isinstance(place, str) else place
    index = torch.arange(prod(shape), device=key.device).view(tuple(shape)) * _GOLDEN
    return _mix(index + (key + _wrap(number * _SECOND)))


def _mix(x: Tensor) -> Tensor:
    # These shifts carry the sign along, which folds one bit of 64 away: harmless in a hash of
    # counters, and saves masking it off.
    x = (x ^ (x >> 30)) * _FIRST
    x = (x ^ (x >> 27)) * _SECOND
    return x ^ (x >> 31)


def _wrap(value: int) -> int:
    """A whole number as the signed 64-bit integer that it is modulo 2^64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
