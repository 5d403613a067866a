"""Counter-based random numbers: a pure function of (key, place, index), with dropout on top.

They replace generators inside heads: equal under `vmap` for one replica or five, in any order of
calls, on any device. The hash is integer arithmetic modulo 2^64, so it is exact everywhere.
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
    """Random key from a seed and counters (epoch, step); it differs wherever one of them does.

    Args:
        seed: () or (R,) int64, one per replica.
        counters: integers that the random numbers also depend on; a tensor of them gives as
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
    """Uniform random numbers in [0, 1), multiples of 2^-24: the same in float32 and float64.

    Args:
        key: () int64, such as `batch.numbers`; under `vmap` one per replica.
        place: name of the use; two places of one key are independent.
        shape: shape of the result, known without looking at data.

    Returns:
        float32 of that shape, on the key's device.
    """
    return (_bits(key, place, shape) >> 39).to(torch.float32) * 2.0**-24


def normal(key: Tensor, place: str | int, shape: Sequence[int]) -> Tensor:
    """Standard normal random numbers, from two uniform ones each (Box-Muller).

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
    """Random permutation of 0 … count - 1, a function of (key, place): () → (count,)."""
    return torch.argsort(_bits(key, place, (count,)), stable=True)


def dropout(x: Tensor, p: float, key: Tensor, place: str | int, *, training: bool) -> Tensor:
    """Dropout as `nn.Dropout`: zero each element with probability p, divide the rest by 1 - p.

    Args:
        x: any shape.
        p: probability of being zeroed, 0 ≤ p < 1.
        key: `batch.numbers`.
        place: a name that no other dropout of the same head has.
        training: the module's `self.training`; without it nothing happens.
    """
    if not training or p == 0:
        return x
    stays = uniform(key, place, x.shape) >= p
    return torch.where(stays, x / (1 - p), 0)


def _bits(key: Tensor, place: str | int, shape: Sequence[int]) -> Tensor:
    """63 random bits per element, so never negative; the top bits are the best mixed."""
    number = zlib.crc32(place.encode()) if isinstance(place, str) else place
    index = torch.arange(prod(shape), device=key.device).view(tuple(shape)) * _GOLDEN
    return _mix(index + (key + _wrap(number * _SECOND)))


def _mix(x: Tensor) -> Tensor:
    # These are arithmetic shifts, which lose one bit of 64: harmless in a hash of counters, and
    # it saves masking the sign.
    x = (x ^ (x >> 30)) * _FIRST
    x = (x ^ (x >> 27)) * _SECOND
    return x ^ (x >> 31)


def _wrap(value: int) -> int:
    """An integer modulo 2^64, as a signed 64-bit one."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
