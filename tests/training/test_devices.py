"""Devices without doubles, and float32 that is computed in float32; both played on the CPU."""

import pytest
import torch
from made import made_table
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines import catalog, device
from pipelines.features.table import gather
from pipelines.training.optimizer import Rates
from pipelines.training.plan import base_plan
from pipelines.training.replicas import Replicas
from pipelines.training.run import build_heads, inputs_of


class WithoutDoubles(TorchDispatchMode):
    """Fails where an operation gives double precision, as Apple's devices do."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Call, then look."""
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError(f"{func} gives float64")
        return found


@pytest.mark.parametrize("method", sorted(catalog.entries("methods")))
def test_a_step_needs_no_doubles(monkeypatch, method):
    """Every method trains a batch on a device that has none."""
    monkeypatch.setattr(device, "_WITHOUT_DOUBLES", ("cpu",))
    table, module = made_table(64), catalog.find("methods", method)
    heads = [device.onto(h, table.device) for h in build_heads(module, inputs_of(table), {}, [0])]
    replicas, plan = Replicas(heads), base_plan(module, method)
    rates = [Rates(plan.learning_rate, plan.weight_decay)]
    batch = gather(table, torch.arange(64)[None], torch.zeros(1, dtype=torch.int64))
    with WithoutDoubles():
        for stage in replicas.head.stages:
            for step in replicas.steps(stage.name):
                loss = replicas.step(batch, (step, stage.name), plan.optimizer, rates, [plan.clip])
                assert loss.isfinite().all()


def test_tensorfloat_is_off_inside_only(monkeypatch):
    """What the caller had set is there again afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        with device.exact_float32():
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
