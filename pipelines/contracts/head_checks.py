"""Checks that every fusion head must pass, one function each; a failure raises CheckFailedError.

"Ledger" names the lines of our list of verified bugs of public code (V) and of requirements (S).
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipelines.contracts import synthetic
from pipelines.contracts.head_probe import (
    ROWS,
    HeadUnderTest,
    ProbeOutputs,
    TrainStep,
    eval_mode,
    gradients,
    outputs,
    probe_head,
    replica_drift,
    test_cases,
    train_steps,
)
from pipelines.contracts.result import CheckFailedError, describe_error
from pipelines.features.table import Batch
from pipelines.fusion.head import FusionHead, Inputs, with_stream_order

SMALLEST = 1e-6
"""A parameter whose largest gradient is below this share of the head's largest is dead."""

DRAWING = {"Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"}
"""Modules that draw from global random state."""


def gradients_reach(subject: HeadUnderTest) -> str:
    """Every parameter receives a gradient, or is listed as frozen with a reason.

    Ledger: S1, V11.
    """
    seen = 0
    for case, inputs in test_cases(subject):
        head = subject.head(inputs).train()
        largest = _largest_gradients(head, inputs)
        top = max(largest.values())
        frozen = {name for name in largest if _reason(head, name) is not None}
        dead = [n for n, size in largest.items() if n not in frozen and size <= SMALLEST * top]
        if dead:
            raise CheckFailedError(f"{case}: no gradient reaches {', '.join(dead)}")
        moved = [n for n in frozen if largest[n] > SMALLEST * top]
        if moved:
            raise CheckFailedError(f"{case}: listed as frozen but moves: {moved}")
        seen += len(largest)
    return f"{seen} parameters over tasks and numbers of streams"


def nothing_absent_is_seen(subject: HeadUnderTest) -> str:
    """Values behind `present = False` change outputs, losses and gradients by exactly 0.

    Ledger: S5.
    """
    compared = 0
    for case, inputs in test_cases(subject):
        batch = synthetic.batch(inputs, ROWS)
        for training in (True, False):
            zeros = probe_head(
                subject.head(inputs).train(training), synthetic.behind_absent(batch, 0.0)
            )
            for value in (float("nan"), float("inf"), 1e4):
                other = probe_head(
                    subject.head(inputs).train(training), synthetic.behind_absent(batch, value)
                )
                leaks = zeros.unlike(other, 0.0)
                if leaks:
                    raise CheckFailedError(f"{case}: {value} behind absent changes {leaks[:3]}")
            compared += len(zeros.values)
    return f"{compared} tensors compared with zeros, NaN, infinity and 1e4 behind absent"


def finite_under_every_pattern(subject: HeadUnderTest) -> str:
    """Outputs, losses and gradients are finite under every pattern of presence, none included.

    Ledger: S4.
    """
    patterns = 0
    for number, task in enumerate(subject.tasks()):
        for count in (1, 2, 3) if number else (1, 2, 3, 10):
            inputs = synthetic.inputs((4,) * count, task)
            every = torch.tensor(list(itertools.product([False, True], repeat=count)))
            for part in torch.split(every, 128):
                batch = synthetic.with_present(synthetic.batch(inputs, len(part)), part)
                for training in (True, False):
                    _check_finite(subject.head(inputs).train(training), batch, f"{count} streams")
            nothing = synthetic.with_present(batch, torch.zeros_like(part))
            for training in (True, False):
                _check_finite(subject.head(inputs).train(training), nothing, "nothing present")
            patterns += len(every)
    return f"{patterns} patterns"


def finite_on_strange_data(subject: HeadUnderTest) -> str:
    """Finite on constant features, equal targets, huge values and identical modalities.

    Ledger: S4, V7.
    """
    for task in subject.tasks():
        inputs = synthetic.inputs((4, 4, 4), task)
        plain = synthetic.batch(inputs, ROWS)
        same = dict.fromkeys(inputs.names, next(iter(plain.features.values())))
        strange = {
            "zeros": _with_features(plain, lambda x: torch.zeros_like(x)),
            "constant features": _with_features(plain, lambda x: torch.full_like(x, 2.5)),
            "features of 1e3": _with_features(plain, lambda x: x * 1e3),
            "identical modalities": replace(plain, features=same),
            "equal targets": replace(plain, targets=plain.targets[:1].expand_as(plain.targets)),
        }
        for training in (True, False):
            for name, batch in strange.items():
                _check_finite(subject.head(inputs).train(training), batch, name)
            loud = subject.head(inputs).train(training)
            _check_finite(_amplified(loud, plain), plain, "logits of 1e3")
    return "zeros, constants, 1e3, identical modalities, equal targets, logits of 1e3"


def one_row_is_a_batch(subject: HeadUnderTest) -> str:
    """A batch of one is finite, in training too.

    Ledger: S4, V21.
    """
    for task in subject.tasks():
        inputs = synthetic.inputs((5, 4, 3), task)
        for absent, training in itertools.product((0.0, 0.6), (True, False)):
            batch = synthetic.batch(inputs, 1, absent=absent)
            _check_finite(subject.head(inputs).train(training), batch, "one row")
    return "complete and incomplete, training and evaluation"


def neighbours_do_not_matter(subject: HeadUnderTest) -> str:
    """In evaluation a sample's output does not depend on the rest of its batch.

    Ledger: S3, V3.
    """
    for case, inputs in test_cases(subject):
        head = eval_mode(subject, inputs)
        batch = synthetic.batch(inputs, ROWS, seed=3)
        together = dict(outputs(head(batch)))
        for row in range(0, ROWS, 5):
            alone = dict(outputs(head(synthetic.some_rows(batch, slice(row, row + 1)))))
            for name, x in together.items():
                gap = float((x[row] - alone[name][0]).abs().max())
                if not gap <= 1e-5 * max(1.0, float(x[row].abs().max())):
                    message = f"{case}: {name} of a row alone differs by {gap:.1e}"
                    raise CheckFailedError(message)
    return "rows alone equal rows in a batch within 1e-5"


def order_of_streams_does_not_matter(subject: HeadUnderTest) -> str:
    """Streams are found by name: a batch that holds them in another order changes nothing."""
    for case, inputs in test_cases(subject):
        head = eval_mode(subject, inputs)
        batch = synthetic.batch(inputs, ROWS)
        turned = with_stream_order(batch, list(inputs.names)[::-1])
        if not torch.equal(head(batch).logits, head(turned).logits):
            raise CheckFailedError(f"{case}: logits change with the order of streams")
    return "reversed streams give equal logits"


def state_makes_the_round_trip(subject: HeadUnderTest) -> str:
    """A head rebuilt from its state dict gives the same outputs."""
    for case, inputs in test_cases(subject):
        head = eval_mode(subject, inputs)
        batch = synthetic.batch(inputs, ROWS)
        state = {name: x.clone() for name, x in head.state_dict().items()}
        other = subject.head(inputs, seed=99).eval()
        other.load_state_dict(state)
        if ProbeOutputs(dict(outputs(head(batch)))).unlike(
            ProbeOutputs(dict(outputs(other(batch)))), 0.0
        ):
            raise CheckFailedError(f"{case}: outputs differ after the round trip")
    return "outputs equal bit for bit"


def chance_is_passed_in(subject: HeadUnderTest) -> str:
    """Training draws from the batch's random numbers alone, never from global random state."""
    for case, inputs in test_cases(subject):
        batch = synthetic.batch(inputs, ROWS)
        head = subject.head(inputs)
        drawn = [type(m).__name__ for m in head.modules() if type(m).__name__ in DRAWING]
        if drawn:
            raise CheckFailedError(
                f"{drawn[0]} draws from global state; use pipelines.counter_rng.dropout"
            )
        state = torch.random.get_rng_state()
        first = probe_head(subject.head(inputs).train(), batch)
        second = probe_head(subject.head(inputs).train(), batch)
        same_state = torch.equal(state, torch.random.get_rng_state())
        if first.unlike(second, 0.0) or not same_state:
            raise CheckFailedError(f"{case}: two passes over one batch differ")
    return "two passes over one batch are equal bit for bit"


def replicas_are_heads(subject: HeadUnderTest) -> str:
    """Replicas stacked under vmap do what separate heads do, state included.

    Ledger: S20.
    """
    widest = 0.0
    for case, inputs in test_cases(subject):
        heads = [subject.head(inputs, seed).double().train() for seed in range(3)]
        if not heads[0].replicable:
            return "one after another, as `replicable = False` says"
        batches = [synthetic.double(synthetic.batch(inputs, ROWS, seed)) for seed in range(3)]
        for stage, step in train_steps(heads[0]):
            gap = replica_drift(heads, batches, stage, step)
            widest = max(widest, gap)
            if not gap <= 1e-8:
                raise CheckFailedError(f"{case}, {step}: they drift apart by {gap:.1e}")
    return f"largest difference {widest:.1e} in double precision"


def runs_where_the_batch_lies(subject: HeadUnderTest) -> str:
    """Tensors are made on the batch's device, and no value is read on the way.

    Tested on torch's meta device, which has shapes and no values, so that no GPU is needed.
    Ledger: S23.
    """
    for case, inputs in test_cases(subject):
        head = subject.head(inputs).to("meta").train()
        if not head.replicable:
            return "not tried: `replicable = False` lets Python read values"
        batch = synthetic.to_device(synthetic.batch(inputs, ROWS), "meta")
        for stage, step in train_steps(head):
            try:
                train_step = TrainStep(head, stage, step)
                train_step(dict(head.named_parameters()), dict(head.named_buffers()), vars(batch))
                probe_head(head.eval(), batch)
            except (RuntimeError, NotImplementedError) as error:
                message = f"{case}, {step}: {describe_error(error)}"
                raise CheckFailedError(message.splitlines()[0]) from error
            head.train()
    return "forward, losses, gradients and state on another device"


def foreign_tasks_are_refused(subject: HeadUnderTest) -> str:
    """Every kind of task is taken, or refused with a MmfuseError when the head is built."""
    found = [f"{task.kind}: {subject.refusal(task) or 'taken'}" for task in synthetic.TASKS]
    if not subject.tasks():
        raise CheckFailedError("; ".join(found))
    return "; ".join(found)


CHECKS: tuple[Callable[[HeadUnderTest], str], ...] = (
    foreign_tasks_are_refused,
    gradients_reach,
    nothing_absent_is_seen,
    finite_under_every_pattern,
    finite_on_strange_data,
    one_row_is_a_batch,
    neighbours_do_not_matter,
    order_of_streams_does_not_matter,
    state_makes_the_round_trip,
    chance_is_passed_in,
    replicas_are_heads,
    runs_where_the_batch_lies,
)


def _largest_gradients(head: FusionHead, inputs: Inputs) -> dict[str, float]:
    """Largest gradient of each parameter, over every step of every stage that trains it."""
    largest = dict.fromkeys(dict(head.named_parameters()), 0.0)
    batch = synthetic.batch(inputs, 4 * ROWS, absent=0.4)
    fused = head(batch)
    for stage, step in train_steps(head):
        for name, gradient in gradients(head, head.loss(batch, fused, step)).items():
            if head.trains(name, step, stage):
                largest[name] = max(largest[name], float(gradient.abs().max()))
    return largest


def _reason(head: FusionHead, name: str) -> str | None:
    for what, why in head.frozen.items():
        if name == what or (what.endswith(".") and name.startswith(what)):
            return why
    return None


def _check_finite(head: FusionHead, batch: Batch, what: str) -> None:
    strange = probe_head(head, batch).strange()
    if strange:
        kind = head.inputs.task.kind
        raise CheckFailedError(f"{what}, {kind}: not finite: {', '.join(strange[:3])}")


def _with_features(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    return replace(batch, features={name: change(x) for name, x in batch.features.items()})


def _amplified(head: FusionHead, batch: Batch) -> FusionHead:
    """The same head with its linear maps made larger until the logits reach about 1e3."""
    maps = [module for module in head.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for _ in range(12):
            if not maps or float(head(batch).logits.abs().max()) > 1e3:
                break
            for linear in maps:
                linear.weight.mul_(2)
    return head
