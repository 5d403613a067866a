"""Plans and the words of --set."""

from types import ModuleType
from typing import Literal

import pytest

from cache.errors import MmfuseError
from pipelines.catalog import entries, find
from pipelines.training.plan import Plan, base_plan, check_range, coerce, option_defaults, settings


def method(**constants: object) -> ModuleType:
    """A module with a build that has options of every kind."""
    module = ModuleType("toy")

    def build(
        inputs: object,
        *,
        width: int = 8,
        share: float = 0.5,
        deep: bool = False,
        form: Literal["dot", "gat"] = "dot",
        limit: float | None = None,
        name: str = "a,b",
    ) -> None: ...

    module.build = build  # type: ignore[attr-defined]
    for key, value in constants.items():
        setattr(module, key, value)
    return module


@pytest.mark.parametrize(
    ("word", "kind", "value"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        ("True", bool, True),
        ("no", bool, False),
        ("gat", Literal["dot", "gat"], "gat"),
        ("none", float | None, None),
        ("0.5", float | None, 0.5),
        ("1,2,3", tuple[int, ...], (1, 2, 3)),
        ("x,y", str, "x,y"),
    ],
)
def test_words_become_what_annotations_ask_for(word: str, kind: object, value: object) -> None:
    """The annotation of an option or field decides how its word is read."""
    assert coerce("it", word, kind) == value


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("x", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("x", float, "a number"),
        ("maybe", bool, "true or false"),
        ("tanh", Literal["dot", "gat"], "one of dot, gat"),
    ],
)
def test_words_that_do_not_fit_are_refused(word: str, kind: object, message: str) -> None:
    """The error names the setting, what it takes and what it got."""
    with pytest.raises(MmfuseError, match=f"width is {message}, not '{word}'"):
        coerce("width", word, kind)


def test_an_unknown_setting_lists_the_valid_ones() -> None:
    """Both the method's options and the plan's fields are named, the nearest first."""
    with pytest.raises(MmfuseError, match=r"did you mean width\?.*learning_rate.*share"):
        settings(method(), "toy", {"widht": "3"})


def test_a_list_of_values_is_a_grid() -> None:
    """Every combination of listed values, in order; words of strings and tuples are not lists."""
    words = {"learning_rate": "1e-3,3e-3", "width": "4,8", "name": "a,b", "seeds": "1,2"}
    found = settings(method(), "toy", words)
    assert [(s.plan.learning_rate, s.options["width"]) for s in found] == [
        (1e-3, 4), (1e-3, 8), (3e-3, 4), (3e-3, 8),
    ]  # fmt: skip
    assert {s.options["name"] for s in found} == {"a,b"}
    assert {s.plan.seeds for s in found} == {(1, 2)}


def test_a_methods_own_plan_gives_way_to_words() -> None:
    """PLAN changes the defaults, words change PLAN, and a strange field in PLAN is an error."""
    module = method(PLAN={"epochs": 7, "clip": None})
    [plain] = settings(module, "toy", {})
    assert (plain.plan.epochs, plain.plan.clip) == (7, None)
    [changed] = settings(module, "toy", {"epochs": "9", "drop_rate": 0.3})
    assert (changed.plan.epochs, changed.plan.clip, changed.plan.drop_rate) == (9, None, 0.3)
    [given] = settings(module, "toy", {"epochs": "9"}, Plan(batch_size=5))
    assert (given.plan.epochs, given.plan.clip, given.plan.batch_size) == (9, 1.0, 5)
    with pytest.raises(MmfuseError, match="PLAN"):
        base_plan(method(PLAN={"epoch": 1}), "toy")


@pytest.mark.parametrize(
    "field",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"drop_rate": 1.0},
        {"missing_rate": -0.1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"patience": -1},
        {"patience": 0},
        {"plateau_patience": -1},
        {"plateau_factor": 0.0},
        {"step_every": 0},
        {"clip": 0.0},
        {"min_delta": -0.1},
        {"momentum": 1.0},
        {"folds": 2},
        {"seeds": ()},
        {"seeds": (1, 1)},
    ],
)
def test_a_plan_that_would_train_nothing_is_refused(field: dict[str, object]) -> None:
    """Values out of range are errors before any work."""
    with pytest.raises(MmfuseError, match=next(iter(field))):
        Plan(**field)  # type: ignore[arg-type]


def test_a_plan_may_do_without_clipping_and_stopping() -> None:
    """None switches off what has a range otherwise; the ends of ranges are inside."""
    plan = Plan(clip=None, patience=None, momentum=0.0, min_delta=0.0, plateau_factor=1.0)
    assert (plan.clip, plan.patience) == (None, None)


@pytest.mark.parametrize("value", ["-4", "0", -4, "8,0"])
def test_an_option_that_every_method_means_alike_has_its_range(value: object) -> None:
    """A word, a value and one of a list: a width below 1 is an error that names it."""
    with pytest.raises(MmfuseError, match="width must be at least 1, not"):
        settings(method(), "toy", {"width": value})


@pytest.mark.parametrize("name", sorted(entries("methods")))
def test_every_option_of_every_method_has_its_default_in_range(name: str) -> None:
    """The range of an option's name holds for each method that has it."""
    for option, value in option_defaults(find("methods", name).build).items():
        check_range(option, value)
