"""How fast heads train: ratios against plain loops in one run, on the same head and optimiser.

    python tests/benchmarks/train.py [--device cpu|cuda] [--quick]

The plain loop is what anybody would write: one head, one seed, `torch.optim`, clipping, modality
dropout, tensors indexed on the device. The loader loop gets the same batches from
`DataLoader(TensorDataset)`.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.func import vmap
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from cache.samples import Samples, Task
from pipelines import catalog, counter_rng
from pipelines.device import onto
from pipelines.features.hiding import drop_modalities
from pipelines.features.statistics import moments
from pipelines.features.table import Batch, FeatureTable, batch_bounds, gather
from pipelines.fusion.head import FusionHead
from pipelines.metrics import baselines
from pipelines.training.optimizer import Rates
from pipelines.training.plan import Plan, base_plan, option_defaults
from pipelines.training.replicas import Replicas
from pipelines.training.run import build_heads, inputs_of

METHODS = ("concat", "clarga", "ef_cl", "mla", "trml")
BATCH, SHARE = 64, 0.3


@dataclass(frozen=True)
class Size:
    """Rows, widths of the streams, classes, and options of the heads."""

    rows: int
    widths: tuple[int, ...]
    classes: int
    batch: int = BATCH


MUG = Size(719, (512, 512), 18)
SMALL = Size(600, (32, 32), 6, 32)


def made(size: Size, device: torch.device) -> FeatureTable:
    """Random features with some cells absent; every row is a train row."""
    rng = np.random.default_rng(0)
    names = [f"e{i}/m{i}" for i in range(len(size.widths))]
    features = {
        name: torch.from_numpy(rng.normal(size=(size.rows, width)).astype(np.float32)).to(device)
        for name, width in zip(names, size.widths, strict=True)
    }
    present = torch.from_numpy(rng.random((size.rows, len(names))) < 0.9).to(device)
    samples = Samples(
        np.array([str(i) for i in range(size.rows)], object),
        np.array(["train"] * size.rows, object),
        rng.integers(0, size.classes, size.rows),
        None,
        Task("classes", tuple(f"c{i}" for i in range(size.classes))),
        (),
        "synthetic",
    )
    modalities = tuple(name.split("/")[1] for name in names)
    rows = torch.arange(size.rows, device=device)
    return FeatureTable(features, {}, present, modalities, samples, rows)


def indexed(table: FeatureTable, size: Size, seed: int, epoch: int) -> Iterator[Batch]:
    """Batches of an epoch by indexing tensors on the device."""
    generator = torch.Generator().manual_seed(seed * 1000 + epoch)
    order = torch.randperm(len(table), generator=generator).to(table.device)
    for start, stop in batch_bounds(len(table), size.batch):
        at = order[start:stop]
        yield Batch(
            {n: x[at] for n, x in table.features.items()},
            table.present[at],
            {},
            table.targets[at],
            table.rows[at],
            counter_rng.key(seed, epoch, start),
        )


def loaded(table: FeatureTable, size: Size, seed: int, epoch: int) -> Iterator[Batch]:
    """The same from a DataLoader over a TensorDataset on the host."""
    host = [x.cpu() for x in table.features.values()]
    data = TensorDataset(*host, table.present.cpu(), table.targets.cpu(), table.rows.cpu())
    generator = torch.Generator().manual_seed(seed * 1000 + epoch)
    loader = DataLoader(data, size.batch, shuffle=True, generator=generator)
    for parts in loader:
        *streams, present, targets, rows = [p.to(table.device) for p in parts]
        features = dict(zip(table.features, streams, strict=True))
        yield Batch(features, present, {}, targets, rows, counter_rng.key(seed, epoch))


def plain(head: FusionHead, plan: Plan, batches: Iterator[Batch], owners: Sequence[int]) -> None:
    """An epoch of the plain loop, for every stage's last steps."""
    stage = head.stages[-1]
    steps = head.steps if stage.steps is None else stage.steps
    optimizer = _optimizer(head, plan)
    share = torch.tensor(SHARE)
    head.train()
    for batch in batches:
        key = batch.numbers.to(batch.present.device)
        there = drop_modalities(batch.present, owners, share.to(key.device), key)
        batch = replace(batch, present=there, numbers=key)
        for step in steps:
            trained = {n: p for n, p in head.named_parameters() if head.trains(n, step, stage.name)}
            fused = head(batch)
            loss = head.loss(batch, fused, step)
            optimizer.zero_grad()
            found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
            gradients = {
                n: torch.zeros_like(p) if g is None else g
                for (n, p), g in zip(trained.items(), found, strict=True)
            }
            buffers = dict(head.named_buffers())
            with torch.no_grad():
                gradients, after = head.modify_gradients(gradients, buffers, batch, fused, step)
                for name, value in after.items():
                    if value is not buffers[name]:
                        buffers[name].copy_(value)
            for name, parameter in trained.items():
                parameter.grad = gradients[name]
            if plan.clip is not None:
                nn.utils.clip_grad_norm_(trained.values(), plan.clip)
            optimizer.step()


def _optimizer(head: FusionHead, plan: Plan) -> torch.optim.Optimizer:
    decays = [p for n, p in head.named_parameters() if head.decays(n, p)]
    others = [p for n, p in head.named_parameters() if not head.decays(n, p)]
    groups = [{"params": decays, "weight_decay": plan.weight_decay}, {"params": others}]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=0.0)


def stacked_batches(
    table: FeatureTable, size: Size, seeds: Sequence[int], epoch: int
) -> Iterator[Batch]:
    """Batches of an epoch for R replicas, as `pipelines.training.loop` gets them."""
    keys = counter_rng.key(torch.tensor(list(seeds), device=table.device), 0, epoch)
    order = vmap(lambda key: counter_rng.permutation(key, "order", len(table)))(keys)
    parts = batch_bounds(len(table), size.batch)
    counters = torch.arange(len(parts), device=table.device)
    for (start, stop), key in zip(parts, counter_rng.key(keys, counters[:, None]), strict=True):
        yield gather(table, order[:, start:stop], key)


def stacked(replicas: Replicas, plan: Plan, batches: Iterator[Batch], table: FeatureTable) -> None:
    """An epoch of the engine, for every stage's last steps."""
    stage = replicas.head.stages[-1].name
    count = replicas.count
    rates, limits = [Rates(plan.learning_rate, plan.weight_decay)] * count, [plan.clip] * count
    share = torch.tensor(SHARE, device=table.device)

    def less(present: Tensor, key: Tensor) -> Tensor:
        return drop_modalities(present, table.owners, share, key)

    for batch in batches:
        there = vmap(less)(batch.present, batch.numbers)
        for step in replicas.steps(stage):
            turned = replace(batch, present=there)
            replicas.step(turned, (step, stage), plan.optimizer, rates, limits)


def timed(acts: Sequence[Callable[[int], None]], rounds: int, device: torch.device) -> list[float]:
    """Best seconds of an epoch of each, taken in turns so that neighbours disturb all alike."""
    found: list[list[float]] = [[] for _ in acts]
    for epoch in range(rounds + 1):
        for seconds, act in zip(found, acts, strict=True):
            start = time.perf_counter()
            act(epoch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return [min(seconds[1:]) for seconds in found]


def batches_only(table: FeatureTable, size: Size, epochs: int) -> None:
    """Print what getting batches costs."""

    def drain(make: Callable[[int], Iterator[Batch]]) -> Callable[[int], None]:
        return lambda epoch: [None for _ in make(epoch)] and None

    acts = [
        drain(lambda e: stacked_batches(table, size, [0], e)),
        drain(lambda e: stacked_batches(table, size, range(5), e)),
        drain(lambda e: loaded(table, size, 0, e)),
    ]
    one, five, loader = timed(acts, epochs, table.device)
    print(
        f"batches of an epoch, {len(table)} rows: ours {one * 1e3:.2f} ms, for five replicas "
        f"{five * 1e3:.2f} ms, DataLoader {loader * 1e3:.2f} ms: {loader / one:.1f} x less"
    )


def epoch_seconds(
    method: str, size: Size, count: int, epochs: int, device: torch.device
) -> tuple[float, float, float, float]:
    """Seconds of an epoch: a plain loop, a loader loop, one replica, `count` replicas."""
    module = catalog.find("methods", method)
    table, plan = made(size, device), base_plan(module, method)
    narrow = {"width": 32, "hidden": 32} if size is SMALL else {}
    options = {k: v for k, v in narrow.items() if k in option_defaults(module.build)}

    def heads(number: int) -> list[FusionHead]:
        found = build_heads(module, inputs_of(table), options, range(number))
        return [onto(head, device) for head in found]

    alone, [other] = heads(1)[0], heads(1)
    many, one = Replicas(heads(count)), Replicas(heads(1))
    owners = table.owners
    acts = [
        lambda e: plain(alone, plan, indexed(table, size, 0, e), owners),
        lambda e: plain(other, plan, loaded(table, size, 0, e), owners),
        lambda e: stacked(one, plan, stacked_batches(table, size, [0], e), table),
        lambda e: stacked(many, plan, stacked_batches(table, size, range(count), e), table),
    ]
    for epoch in range(3):  # until memory and caches are warm
        acts[2](epoch)
        acts[3](epoch)
    loop, loader, single, all_of = timed(acts, epochs, device)
    return loop, loader, single, all_of


def compare(method: str, size: Size, count: int, epochs: int, device: torch.device) -> None:
    """Print how long an epoch of `count` seeds takes, side by side and one after another."""
    loop, loader, single, all_of = epoch_seconds(method, size, count, epochs, device)
    print(
        f"{method:8} {count:3} replicas: {all_of * 1e3:8.1f} ms an epoch; {count} plain loops "
        f"{count * loop * 1e3:8.1f} ms ({count * loop / all_of:4.2f} x), {count} loader loops "
        f"{count * loader / all_of:4.2f} x, {count} runs of one replica "
        f"{count * single / all_of:4.2f} x; one loader loop / one replica {loader / single:4.2f} x"
    )


def against_loops(method: str) -> tuple[float, str]:
    """Five plain loops against five replicas, one thread: the ratio, and the seconds in words."""
    torch.set_num_threads(1)
    loop, _, _, all_of = epoch_seconds(method, MUG, 5, 12, torch.device("cpu"))
    return 5 * loop / all_of, (
        f"{all_of * 1e3:.0f} ms an epoch of {MUG.rows} rows against {5 * loop * 1e3:.0f} ms"
    )


def one_step(method: str) -> Callable[[], None]:
    """A function that takes one step of five replicas at the size of MuG, on one thread."""
    torch.set_num_threads(1)
    module = catalog.find("methods", method)
    table, plan = made(MUG, torch.device("cpu")), base_plan(module, method)
    five = Replicas(build_heads(module, inputs_of(table), {}, range(5)))
    batch = next(iter(stacked_batches(table, MUG, range(5), 0)))
    return lambda: stacked(five, plan, iter([batch]), table)


def share_of_peak(method: str) -> tuple[float, str]:
    """Floating-point operations a second of a step, in percent of what a matrix product reaches."""
    step = one_step(method)
    with FlopCounterMode(display=False) as counter:
        step()
    a, work, shares = torch.randn(1024, 1024), counter.get_total_flops(), []
    for _ in range(30):
        start = time.perf_counter()
        a @ a
        product = 2 * 1024**3 / (time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(5):
            step()
        shares.append(5 * work / (time.perf_counter() - start) / product)
    return 100 * float(np.median(shares)), f"{work / 1e6:.0f} Mflop a step"


def profile(method: str) -> list[tuple[str, float]]:
    """The ten operations that take most of a step, with their shares of it."""
    step = one_step(method)
    for _ in range(20):
        step()
    with profiler(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(50):
            step()
    each = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    whole = sum(each.values())
    largest = sorted(each.items(), key=lambda item: -item[1])[:10]
    return [(name, round(spent / whole, 3)) for name, spent in largest]


def logistic(rows: int, width: int, classes: int) -> tuple[float, str]:
    """Our linear baseline against five fits by scikit-learn on the design matrix that we made."""
    plain = made(Size(rows, (width // 2, width // 2), classes), torch.device("cpu"))
    signal = sum(x[:, :classes] for x in plain.features.values())
    noise = torch.from_numpy(np.random.default_rng(1).gumbel(size=signal.shape)).float()
    targets = (signal + noise).argmax(1).numpy()
    splits = np.array(["train"] * (rows * 4 // 5) + ["val"] * (rows - rows * 4 // 5), object)
    table = replace(plain, samples=replace(plain.samples, splits=splits, targets=targets))
    ours, theirs = [], []
    for _ in range(5):
        baselines._FITTED.clear()
        start = time.perf_counter()
        baselines.fit_linear(table)
        ours.append(time.perf_counter() - start)
        train = table.take(table.split("train"))
        x = baselines.design(train, list(table.features), moments(train))[:, :-1].numpy()
        start = time.perf_counter()
        with threadpool_limits(1, user_api="blas"):
            for penalty in baselines.PENALTIES:
                LogisticRegression(C=1 / (penalty * len(x)), max_iter=100).fit(x, targets[: len(x)])
        theirs.append(time.perf_counter() - start)
    a, b = np.median(ours), np.median(theirs)
    return float(a / b), f"{a:.2f} s against {b:.2f} s, medians of five"


def main() -> None:
    """Print every ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    asked = parser.parse_args()
    device, epochs = torch.device(asked.device), 3 if asked.quick else 10
    print(f"torch {torch.__version__}, {asked.device}, {torch.get_num_threads()} threads")
    batches_only(made(MUG, device), MUG, epochs)
    large = Size(8_500, (768, 512), 101, 256)
    batches_only(made(large, device), large, 3)
    print(f"MuG size: {MUG}")
    for method in asked.methods:
        compare(method, MUG, 5, epochs, device)
    print(f"small: {SMALL}, width 32")
    for method in asked.methods:
        compare(method, SMALL, 20, epochs, device)


if __name__ == "__main__":
    main()
