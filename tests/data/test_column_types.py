"""Types of columns: what a column is taken as, and how single cells are then read."""

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.values.column_types import ColumnType, decimal_mark, infer, read_column

NUMBER = ColumnType("number")


def column(*cells):
    """A column of words."""
    return pl.Series("c", cells, pl.String)


def read(*cells, **known):
    """(type, values) of a column judged by itself."""
    kind = infer(column(*cells), **known)
    return kind, read_column(column(*cells), kind).values.to_list()


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "2.5", "-3", "1e3"], NUMBER, [1, 2.5, -3, 1000]),
        (["30,5", "7,25"], ColumnType("number", ","), [30.5, 7.25]),
        (["3,000", "12,345,678", "7"], ColumnType("number", ".", ","), [3000, 12345678, 7]),
        (["1.234,5", "2,25"], ColumnType("number", ",", "."), [1234.5, 2.25]),
        (["1 234", "5", "12\u00a0345"], ColumnType("number", ".", " "), [1234, 5, 12345]),
        (["1'234.5", "2'000"], ColumnType("number", ".", "'"), [1234.5, 2000]),
        (["12 %", "7.5%", "0"], ColumnType("number", unit="%"), [12, 7.5, 0]),
        (["$1,200.50", "$30", "-$5"], ColumnType("number", ".", ",", "$"), [1200.5, 30, -5]),
        (["1.200,50 €", "30,00 €"], ColumnType("number", ",", ".", "€"), [1200.5, 30]),
        (["USD 12", "USD 7.5"], ColumnType("number", unit="USD"), [12, 7.5]),
        (["−3", "4"], NUMBER, [-3, 4]),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(cells, kind, values):
    """Decimal commas, thousands, percent and currency, where the whole column is written so."""
    assert read(*cells) == (kind, values)


@pytest.mark.parametrize("word", ["NA", "?", "n/a", "-", "see note", "#N/A", ""])
def test_one_odd_cell_does_not_change_a_column_of_numbers(word):
    """It is missing, and is named with its row; an empty cell is missing without a word."""
    cells = column(*[str(n) for n in range(40)], word)
    kind = infer(cells)
    reading = read_column(cells, kind)
    assert kind == NUMBER
    assert reading.values.to_list() == [*range(40), None]
    said = reading.describe_unfit(cells)
    expected = f"1 of 41 cells is no number and counts as missing, such as {word!r} in row 40"
    assert said == (expected if word else "")


def test_few_numbers_beside_words_are_categories():
    """Wards 1, 2, 3 and A are names; ages of which a third is unknown stay numbers."""
    assert infer(column(*"123A" * 20)).kind == "category"
    ages = [str(20 + n % 50) for n in range(60)] + ["unclear"] * 30
    assert infer(column(*ages)) == NUMBER
    assert infer(column("red", "green", "7")).kind == "category"


def test_a_comma_before_three_digits_goes_by_the_rest_of_the_file():
    """`1,234` is thousands, unless other columns or the separator say that commas are decimal."""
    heights, scores = column("1,57", "1,80"), column("4,921", "5,123")
    assert read("4,921", "5,123")[1] == [4921, 5123]
    assert decimal_mark([heights, scores]) == ","
    assert read("4,921", "5,123", decimal=",")[1] == [4.921, 5.123]
    assert decimal_mark([scores], ";") == ","
    assert decimal_mark([scores], ",") is None
    assert decimal_mark([scores, column("0.5")], ";") == "."
    assert read("1.234", "5.678", decimal=",")[1] == [1234, 5678]  # a point between thousands


def test_mixed_currencies_are_no_numbers():
    """Five dollars and five euros are not the same number."""
    assert infer(column("$5", "5 €", "$7", "9 €")).kind == "category"


@pytest.mark.parametrize(
    ("cells", "date", "first"),
    [
        (["2024-03-01", "2024-12-31"], "iso date", "2024-03-01"),
        (["01.03.2024", "31.12.2024"], "dd.mm.yyyy", "2024-03-01"),
        (["01/03/2024", "31/12/2024"], "dd/mm/yyyy", "2024-03-01"),
        (["03/01/2024", "12/31/2024"], "mm/dd/yyyy", "2024-03-01"),
        (["2024/03/01", "2024/12/31"], "yyyy/mm/dd", "2024-03-01"),
        (["01.03.2024 14:30", "31.12.2024 00:00:10"], "dd.mm.yyyy", "2024-03-01 14:30"),
        (["2024-03-01T14:30:00+02:00", "2024-03-01 12:30"], "iso", "2024-03-01 12:30"),
        (["2024-03-01T14:30:00.250Z", "2024-03-01T14:30Z"], "iso", "2024-03-01 14:30"),
    ],
)  # fmt: skip
def test_dates_are_read_as_they_are_written(cells, date, first):
    """Common formats, where one of them reads the column; moments are in UTC."""
    kind, values = read(*cells)
    assert (kind.kind, kind.date) == ("date", date)
    assert None not in values
    assert str(values[0]).startswith(first)


def test_an_odd_date_is_missing():
    """The 31st of February costs its cell."""
    cells = [f"{day:02}.01.2024" for day in range(1, 29)]
    kind, values = read(*cells, "31.02.2024")
    assert kind.date == "dd.mm.yyyy"
    assert values[-1] is None


def test_a_cell_means_the_same_in_every_table():
    """A type that was inferred once decides alone: no other cell of the new table matters."""
    kind = infer(column(*[f"{n},5" for n in range(30)]))
    alone = read_column(column("7,5"), kind).values.to_list()
    beside = read_column(column("7,5", "n/a", "8.25", "x"), kind).values.to_list()
    assert alone == [7.5]
    assert beside == [7.5, None, None, None]


def test_typed_columns_are_taken_as_they_are():
    """Parquet and JSON have types: a boolean is a category, a NaN is missing."""
    assert infer(pl.Series("c", [1, 2])) == NUMBER
    assert infer(pl.Series("c", [True, False])).kind == "category"
    reading = read_column(pl.Series("c", [1.5, float("nan"), None]), NUMBER)
    assert reading.values.to_list() == [1.5, None, None]
    truth = read_column(pl.Series("c", [True, None]), ColumnType("category"))
    assert truth.values.to_list() == ["true", None]
    assert read_column(pl.Series("c", [[1]]), NUMBER).unfit.to_list() == [True]
    assert read_column(pl.Series("c", ["7"], pl.String), NUMBER).values.to_list() == [7]


@given(
    st.lists(st.floats(-1e6, 1e6).map(lambda v: round(v, 2)), min_size=2, max_size=20),
    st.sampled_from([(".", ""), (",", ""), (".", ","), (",", "."), (".", "'"), (",", " ")]),
    st.sampled_from(["", "%", "€", "CHF"]),
)
def test_what_is_written_is_read_back(values, marks, unit):
    """Any numbers, written one way: the values come back, whatever way was inferred."""
    decimal, grouping = marks
    cells = []
    for value in values:
        text = f"{value:,.2f}".replace(",", "G").replace(".", decimal).replace("G", grouping)
        cells.append(f"{text} {unit}".strip())
    kind = infer(column(*cells), decimal=decimal)
    assert kind.kind == "number"
    assert read_column(column(*cells), kind).values.to_list() == pytest.approx(values)


def test_a_type_survives_its_record():
    """JSON and back."""
    for kind in (NUMBER, ColumnType("number", ",", ".", "€"), ColumnType("date", date="iso")):
        assert ColumnType.from_record(kind.record()) == kind


def test_order_and_shuffling_do_not_matter():
    """The type of a column is a function of its cells, not of their order."""
    cells = [f"{n},{n % 10}" for n in range(50)] + ["NA"] * 5
    random.Random(0).shuffle(cells)
    assert infer(column(*cells)) == infer(column(*sorted(cells))) == ColumnType("number", ",")
