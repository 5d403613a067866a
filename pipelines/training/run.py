"""Run a checked request: load features, fit heads, score, record."""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from cache.baselines import Baselines
from cache.errors import MmfuseError
from cache.feature_store import FeatureStore
from cache.fingerprints import fingerprint
from cache.runs import RunRecord, Scores, new_id, write_run
from pipelines import catalog
from pipelines.data.splits import with_fold
from pipelines.device import exact_float32, onto, pick_device, threads_for
from pipelines.features.hiding import HiddenTable, hide
from pipelines.features.load import load_table
from pipelines.features.missing import MissingPattern
from pipelines.features.statistics import class_weights, moments, target_scale
from pipelines.features.table import Batch, FeatureTable, at_least_single, batch_bounds
from pipelines.fusion.head import FusionHead, Inputs, ObservesEpochSize, ObservesMoments, Stream
from pipelines.metrics import baselines
from pipelines.training import record as recording
from pipelines.training import resume
from pipelines.training.loop import Epoch, FitJob, fit
from pipelines.training.plan import VECTOR_FIELDS, Plan, Setting, expand_grid
from pipelines.training.record import TrainingJob
from pipelines.training.replicas import Replicas
from pipelines.training.request import Request


def run(request: Request) -> list[RunRecord]:
    """Train every setting of a request; one record each, in the order of the grid."""
    grid = grid_of(request)
    job = open_job(request)
    records: dict[int, RunRecord] = {}
    for numbers in stackable(grid):
        chosen = [grid[number] for number in numbers]
        records |= dict(zip(numbers, train_together(job, chosen), strict=True))
    return [records[number] for number in range(len(grid))]


def grid_of(request: Request) -> list[Setting]:
    """Every setting of a request, in the order of its grid."""
    module = catalog.find("methods", request.method)
    grid = expand_grid(module, request.method, request.settings, request.plan)
    if any(setting.plan.folds for setting in grid):
        _refuse_fitted(request)
    return grid


@threads_for(0)
def open_job(request: Request) -> TrainingJob:
    """Load what the settings of a request share: method, source and rows."""
    module = catalog.find("methods", request.method)
    store = FeatureStore(request.home, request.dataset)
    table = load_table(store, request.infos, pick_device(request.device))
    source = None
    if request.method.endswith(".py"):
        source = Path(request.method).read_text(encoding="utf-8")
    group = request.group or new_id(request.method, request.dataset)
    return TrainingJob(request, module, source, table, group)


def _refuse_fitted(request: Request) -> None:
    """Refuse folds on streams of fitted encoders, which have seen rows that a fold scores."""
    for info in request.infos:
        if "fitted_on" in info.fields:
            raise MmfuseError(
                f"{info.key.name} was fitted on the train split, whose rows the folds score; "
                f"leave it out with --features, or leave --folds out"
            )


def stackable(grid: Sequence[Setting]) -> list[list[int]]:
    """Group the settings of a grid (by number) that can be trained as one stack of replicas."""
    stacks: dict[str, list[int]] = {}
    for number, setting in enumerate(grid):
        same = {k: v for k, v in asdict(setting.plan).items() if k not in VECTOR_FIELDS}
        stacks.setdefault(repr((same, sorted(setting.options.items()))), []).append(number)
    return list(stacks.values())


def build_heads(
    module: ModuleType, inputs: Inputs, options: dict[str, Any], seeds: Sequence[int]
) -> list[FusionHead]:
    """Build one head per seed, initialised from it alone; global random state is restored.

    Raises:
        MmfuseError: if `build` returns something else.
    """
    heads = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = module.build(inputs, **options)
        if not isinstance(head, FusionHead):
            given = type(head).__name__
            raise MmfuseError(f"{module.__file__}: build() gave {given}, not a FusionHead")
        heads.append(head)
    return heads


def resplit(table: FeatureTable, plan: Plan) -> FeatureTable:
    """Apply the splits of the plan's fold, if it has one."""
    if plan.fold is None:
        return table
    samples = with_fold(table.samples, plan.folds, plan.fold)
    return replace(table, samples=samples, scale=target_scale(samples))


def missing_pattern(plan: Plan) -> MissingPattern:
    """Missing pattern of a plan's data protocol, the same in every split."""
    return MissingPattern.rate(plan.missing_rate, plan.missing_seed, plan.missing_protocol)


@threads_for(0)
def train_together(job: TrainingJob, chosen: Sequence[Setting]) -> list[RunRecord]:
    """Train and record settings that can be one stack of replicas, settings × seeds."""
    began, plan = time.perf_counter(), chosen[0].plan
    hidden = hide(resplit(job.table, plan), missing_pattern(plan))
    replicas, history = _fit(job, chosen, hidden.table)
    seconds = (time.perf_counter() - began) / len(chosen)
    stored = Baselines(
        job.request.home, job.request.dataset, [i.key.fingerprint for i in job.request.infos]
    )
    simple, remarks = _baselines(hidden, missing_pattern(plan).label, stored)
    records = []
    for number, setting in enumerate(chosen):
        seeds = setting.plan.seeds
        mine = range(number * len(seeds), (number + 1) * len(seeds))
        found, predictions = recording.score_all(
            replicas,
            hidden,
            mine,
            seeds,
            label=missing_pattern(plan).label,
            splits=job.request.splits,
        )
        trained = {n: v[mine.start : mine.stop] for n, v in replicas.state.items()}
        record = replace(
            recording.make_record(job, setting, hidden, replicas.head),
            seconds=seconds,
            epochs=tuple(recording.epochs_of(history, r) for r in mine),
            notes=(*hidden.remarks(), *replicas.head.remarks(trained), *remarks),
        )
        state = {n: v.cpu().numpy() for n, v in trained.items()}
        epochs = recording.history_table(history, mine, seeds)
        record.add_scores(found)
        for name, base in simple.items():
            record.add_scores(base, name)
        write_run(record, state, epochs, predictions, job.source)  # last: then it is a run
        records.append(record)
    _checkpoint_path(job, chosen).unlink(missing_ok=True)
    return records


def _fit(
    job: TrainingJob, chosen: Sequence[Setting], table: FeatureTable
) -> tuple[Replicas, list[Epoch]]:
    """Train settings × seeds side by side, resumed from a checkpoint if there is one."""
    seen = table.take(np.flatnonzero(np.isin(table.samples.splits, ("train", "val"))))
    plans = [setting.plan for setting in chosen for _ in setting.plan.seeds]
    seeds = [seed for setting in chosen for seed in setting.plan.seeds]
    heads = build_heads(job.module, inputs_of(table), chosen[0].options, seeds)
    prepare(heads, seen, plans[0])
    check_outputs(heads[0], seen, job.request.method)
    replicas = Replicas([onto(head, table.device) for head in heads])
    place = _checkpoint_path(job, chosen)
    keep = resume.checkpoint_writer(place, job.request.keep_seconds)
    fit_job = FitJob(seen, plans, seeds, job.request.on_epoch, keep)
    with (
        threads_for(replicas.operations(plans[0].batch_size)),
        exact_float32(),
        _told_of_vmap(job.request.method),
    ):
        return replicas, fit(replicas, fit_job, resume.read_checkpoint(place, replicas))


@contextmanager
def _told_of_vmap(method: str) -> Iterator[None]:
    """Say in one line what in a head's file cannot run under vmap, and what to do.

    Raises:
        MmfuseError: in place of torch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        frames = traceback.extract_tb(error.__traceback__)
        own = [
            f for f in frames if method.endswith(".py") and f.filename.endswith(Path(method).name)
        ]
        if "vmap" not in text or not own:
            raise
        said = text.split("vmap: ")[-1].split(". ")[0]
        raise MmfuseError(
            f"{method}, line {own[-1].lineno}: `{own[-1].line}` cannot run for several replicas at "
            f"once ({said}); write it without reading values (see docs/own-method.md), or say "
            f"`replicable = False` in the class of the head, which trains them one after another"
        ) from error


def check_outputs(head: FusionHead, table: FeatureTable, method: str) -> None:
    """Check a head's logits on two rows before it is trained.

    Raises:
        MmfuseError: for another shape than (B, C).
    """
    few = table.window(0, min(2, len(table)))
    features = {name: at_least_single(x) for name, x in few.features.items()}
    number = torch.zeros((), dtype=torch.int64, device=few.device)
    batch = Batch(features, few.present, few.frame_present, few.targets, few.rows, number)
    head.eval()
    with torch.no_grad():
        shape = tuple(onto(head, few.device)(batch).logits.shape)
    if shape != (len(few), table.samples.task.outputs):
        raise MmfuseError(
            f"{method}: logits of {len(few)} rows have shape {shape}, not "
            f"{(len(few), table.samples.task.outputs)}; the last layer gives inputs.outputs values"
        )


def _baselines(
    hidden: HiddenTable, label: str, stored: Baselines
) -> tuple[dict[str, list[Scores]], tuple[str, ...]]:
    """Scores of the majority class and of a linear model on validation and test rows; notes."""
    table = hidden.table
    name = baselines.linear_name(table.samples.task)
    model = baselines.fit_linear(table, stored=stored)
    found: dict[str, list[Scores]] = {"majority": [], name: []}
    for split in ("val", "test"):
        pattern = (label, hidden.realised(split))
        found["majority"].append(baselines.majority(table, split, *pattern))
        found[name].append(baselines.linear_scores(model, table, split, *pattern))
    return found, model.remarks(table.samples.task)


def _checkpoint_path(job: TrainingJob, chosen: Sequence[Setting]) -> Path:
    """Path of the checkpoint of exactly this training."""
    request = job.request
    identity = {
        "method": request.method if job.source is None else recording.digest(job.source),
        "dataset": request.dataset,
        "snapshot": request.infos[0].snapshot,
        "streams": [[i.key.fingerprint, i.key.modality, i.generation] for i in request.infos],
        "settings": [repr((s.plan, sorted(s.options.items()))) for s in chosen],
        "versions": [version(name) for name in ("mmfuse", "torch")],
        "device": str(job.table.device),
    }
    return request.home.runs / ".unfinished" / f"{fingerprint(identity)[:16]}.safetensors"


def prepare(heads: Sequence[FusionHead], table: FeatureTable, plan: Plan) -> None:
    """Call the hooks that run before training, and set class weights.

    `observe` and `observe_epoch_size` of every head and of every submodule that defines them.
    """
    train = table.take(table.split("train"))
    seen = moments(train)
    batches = len(batch_bounds(len(train), plan.batch_size))
    weights = class_weights(train) if plan.class_weights else None
    for head in heads:
        if weights is not None:
            head.class_weight.copy_(weights)
        for module in head.modules():
            if isinstance(module, ObservesMoments):
                module.observe(seen)
            if isinstance(module, ObservesEpochSize):
                module.observe_epoch_size(batches, int(train.complete.sum()))


def inputs_of(table: FeatureTable) -> Inputs:
    """`Inputs` of a table, the argument of `build`."""
    each = zip(table.features.items(), table.modalities, strict=True)
    streams = {n: Stream(x.shape[-1], m, n in table.frame_present) for (n, x), m in each}
    return Inputs(streams, table.samples.task)
