"""Random numbers that can be had for any coin and any day alone, in any order.

Only hashing and the tables made from it belong here; what the numbers mean for prices does not.
A generator with a state would make a price depend on what was asked for before; a hash of
(seed, coin, day) cannot.
"""

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def key(seed: int, *names: object) -> Keys:
    """One 64-bit key (array of shape (1,)) for a named stream of a seed."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def mix(values: Keys) -> Keys:
    """SplitMix64's finaliser: neighbouring integers become unrelated ones."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    mixed: Keys = values ^ (values >> np.uint64(31))
    return mixed


def hashes(keys: Keys, counters: npt.NDArray[np.int64]) -> Keys:
    """A hash for every pair of key and counter: shape keys.shape + counters.shape."""
    inner = mix(counters.astype(np.uint64) * _STEP)
    return mix(keys.reshape(keys.shape + (1,) * counters.ndim) ^ inner)


def fat_tailed(keys: Keys, first: int, count: int) -> Floats:
    """Unit-variance Student-t(4) variates number `first` to `first + count`, shape (keys, count).

    `first` and `count` are multiples of 4: one hash holds four variates.
    """
    counters = np.arange(first // 4, (first + count) // 4, dtype=np.int64)
    quarters = hashes(keys, counters).astype("<u8", copy=False).view("<u2")
    drawn: Floats = _student_t4()[quarters]
    return drawn


def uniform(keys: Keys, counters: npt.NDArray[np.int64]) -> Floats:
    """Uniform numbers in [0, 1), shape keys.shape + counters.shape."""
    drawn: Floats = (hashes(keys, counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return drawn


def single_uniform(stream: Keys, *names: object) -> float:
    """One uniform number in [0, 1) for a name within a stream."""
    return float(uniform(key(int(stream[0]), *names), np.zeros(1, dtype=np.int64))[0, 0])


@lru_cache(maxsize=1)
def _student_t4() -> Floats:
    # The quantile function of Student's t has a closed form at four degrees of freedom (Shaw 2006);
    # its variance is 2.
    p = (np.arange(65_536) + 0.5) / 65_536
    alpha = 4 * p * (1 - p)
    q = np.cos(np.arccos(np.sqrt(alpha)) / 3) / np.sqrt(alpha)
    table: Floats = np.sign(p - 0.5) * np.sqrt(np.maximum(q - 1, 0)) * 2 / np.sqrt(2)
    return table
