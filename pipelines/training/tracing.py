"""Tracing: a pure function called often enough with the same shapes is recorded and replayed.

Replay runs the very operations of the eager call, so the bits are the same; what is saved is the
time that `vmap` and `grad` take to work them out, which for small heads is most of a step.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

OFTEN = 200
"""Calls with the same shapes after which recording, about as long as 50 calls, pays."""


class Replayed:
    """A pure function of nested dicts and tuples of tensors, recorded once it is called often.

    Args:
        function: without Python branches on data; called under `torch.no_grad`.
        often: calls with the same shapes before it is recorded.
    """

    def __init__(self, function: Callable[..., Any], often: int = OFTEN) -> None:
        self.function, self.often = function, often
        self.calls: Counter[tuple[object, ...]] = Counter()
        self.records: dict[tuple[object, ...], Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - whatever the function takes
        """What the function returns."""
        shapes = tuple((tuple(x.shape), x.dtype) for x in tree_leaves(arguments))
        record = self.records.get(shapes)
        with torch.no_grad():
            if record is not None:
                return record(*arguments)
            self.calls[shapes] += 1
            if self.calls[shapes] == self.often:
                self._record(shapes, arguments)
            return self.function(*arguments)

    def _record(self, shapes: tuple[object, ...], arguments: tuple[Any, ...]) -> None:
        with contextlib.suppress(Exception):  # a saving, never a condition: eager calls go on
            self.records[shapes] = make_fx(self.function)(*arguments)
