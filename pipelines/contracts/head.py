"""The contract of a head: every promise tried on a method by name or on a user's own file."""

from collections.abc import Callable, Mapping

from pipelines import catalog
from pipelines.contracts import head_checks, head_learning, synthetic
from pipelines.contracts.head_probe import Subject
from pipelines.contracts.result import BrokenError, Promise, told
from pipelines.fusion.head import FusionHead
from pipelines.progress import Track, untracked
from pipelines.training.plan import base_plan


def check(
    method: str,
    options: Mapping[str, object] | None = None,
    *,
    training: bool = True,
    track: Track = untracked,
) -> list[Promise]:
    """Try every promise on a method; where no head can be built, that one alone.

    Args:
        method: a name, or the path of a file with `build`.
        options: for `build`; its own defaults otherwise.
        training: also the promises that train heads, which take seconds rather than moments.
        track: progress.

    Raises:
        MmfuseError: where there is no such method.
    """
    subject = find_subject(method, options)
    built = attempt(a_head_is_built, subject)
    if not built.kept:
        return [built]  # nothing else can be tried
    chosen = [*head_checks.PROMISES, *(head_learning.PROMISES if training else ())]
    return [attempt(promise, subject) for promise in track(chosen, "promises", len(chosen))]


def find_subject(method: str, options: Mapping[str, object] | None = None) -> Subject:
    """The method as something to try promises on."""
    module = catalog.find("methods", method)
    return Subject(module.build, options or {}, base_plan(module, method))


def attempt(promise: Callable[[Subject], str], subject: Subject) -> Promise:
    """Whether a promise kept; an error inside the head is an answer too."""
    text = (promise.__doc__ or promise.__name__).split("\n", 1)[0].rstrip(".")
    try:
        return Promise(text, kept=True, detail=promise(subject))
    except BrokenError as seen:
        return Promise(text, kept=False, detail=str(seen))
    except Exception as error:  # a user's head may fail in any way, and the other promises go on
        return Promise(text, kept=False, detail=told(error))


def a_head_is_built(subject: Subject) -> str:
    """Its `build` gives a FusionHead."""
    for task in subject.tasks():
        made: object = subject.head(synthetic.inputs((5, 4, 3), task))
        if not isinstance(made, FusionHead):
            raise BrokenError(f"{task.kind}: it gave {type(made).__name__}, not a FusionHead")
    return "for every task that it takes"
