"""Conformance checks of a fusion head: a method by name, or a user's own file."""

from collections.abc import Callable, Mapping

from pipelines import catalog
from pipelines.contracts import head_checks, head_learning, synthetic
from pipelines.contracts.head_probe import HeadUnderTest
from pipelines.contracts.result import Check, CheckFailedError, describe_error
from pipelines.fusion.head import FusionHead
from pipelines.progress import Track, untracked
from pipelines.training.plan import base_plan, settings


def check(
    method: str,
    options: Mapping[str, object] | None = None,
    *,
    training: bool = True,
    track: Track = untracked,
) -> list[Check]:
    """Run every check on a method; only the first one where no head can be built.

    Args:
        method: a name, or the path of a file with `build`.
        options: for `build`, values as they are or as words; its own defaults otherwise.
        training: also the checks that train heads, which take seconds.
        track: progress.

    Raises:
        MmfuseError: where there is no such method.
    """
    subject = head_under_test(method, options)
    built = run_check(a_head_is_built, subject)
    if not built.passed:
        return [built]  # nothing else can be checked
    chosen = [*head_checks.CHECKS, *(head_learning.CHECKS if training else ())]
    return [run_check(one, subject) for one in track(chosen, "checks", len(chosen))]


def head_under_test(method: str, options: Mapping[str, object] | None = None) -> HeadUnderTest:
    """A method with its options and training plan, ready to be checked."""
    module = catalog.find("methods", method)
    (setting, *_) = settings(module, method, options or {})
    return HeadUnderTest(module.build, setting.options, base_plan(module, method))


def run_check(check: Callable[[HeadUnderTest], str], subject: HeadUnderTest) -> Check:
    """Result of one check; any error raised by the head fails it."""
    text = (check.__doc__ or check.__name__).split("\n", 1)[0].rstrip(".")
    try:
        return Check(text, passed=True, detail=check(subject))
    except CheckFailedError as seen:
        return Check(text, passed=False, detail=str(seen))
    except Exception as error:  # a user's head may fail in any way; the other checks still run
        return Check(text, passed=False, detail=describe_error(error))


def a_head_is_built(subject: HeadUnderTest) -> str:
    """Its `build` returns a FusionHead."""
    for task in subject.tasks():
        made: object = subject.head(synthetic.inputs((5, 4, 3), task))
        if not isinstance(made, FusionHead):
            raise CheckFailedError(
                f"{task.kind}: it returned {type(made).__name__}, not a FusionHead"
            )
    return "for every task that it takes"
