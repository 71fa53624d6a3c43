"""A table as a DataFrame of plain values, written as CSV, LaTeX and Markdown, and shown on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from repro.formatting import number
from repro.paper.targets import Measurement

Cell = str | float | int | None | Measurement


@dataclass(frozen=True)
class Column:
    """A column: its name, the heading that it shares with its neighbours, if any, and how floats are printed.

    Floats have one decimal, or all their digits if the column is `exact`.
    """

    name: str
    group: str = ""
    exact: bool = False

    @property
    def label(self) -> str:
        """The name with the shared heading: "Top-1: paper"."""
        return f"{self.group}: {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Section:
    """Rows under a common heading; an empty heading is not shown."""

    heading: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """A table of the report. Every row of every section has one cell per column."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    sections: Sequence[Section]

    @property
    def filled(self) -> bool:
        """Whether there is a row at all."""
        return any(section.rows for section in self.sections)

    @property
    def frame(self) -> pd.DataFrame:
        """The cells as objects: indexed by the sections' headings, with (group, name) as columns."""
        rows = [list(row) for section in self.sections for row in section.rows]
        headings = [section.heading for section in self.sections for _ in section.rows]
        columns = pd.MultiIndex.from_tuples([(column.group, column.name) for column in self.columns])
        # As objects, so that a count beside an empty cell stays a whole number.
        return pd.DataFrame(rows, index=pd.Index(headings, name="group"), columns=columns, dtype=object)

    @property
    def spans(self) -> list[tuple[str, list[int]]]:
        """The shared headings, each with the indices of its columns, in order; a column without one stands alone."""
        found: list[tuple[str, list[int]]] = []
        for index, column in enumerate(self.columns):
            if column.group and found and found[-1][0] == column.group:
                found[-1][1].append(index)
            else:
                found.append((column.group, [index]))
        return found

    @property
    def textual(self) -> list[bool]:
        """Of each column, whether it holds text and no number."""
        kinds = [{type(row[index]) for section in self.sections for row in section.rows} for index in self._indices]
        return [str in found and found <= {str, type(None)} for found in kinds]

    @property
    def _indices(self) -> range:
        return range(len(self.columns))

    def text(self, cell: Cell, column: int) -> str:
        """Return a cell of the column of that index as it is printed; a dash where there is no number."""
        if isinstance(cell, Measurement):
            return with_interval(cell)
        if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
            return "—"
        if isinstance(cell, float):
            return number(cell, None if self.columns[column].exact else 1)
        return f"{cell:,}" if isinstance(cell, int) else cell

    def write_csv(self, folder: Path) -> None:
        """Write `<name>.csv` into `folder` with all digits; a measured column is followed by its interval and n."""
        frame = self.frame
        flat: dict[str, Any] = {"group": frame.index}
        for column, (_, cells) in zip(self.columns, frame.items(), strict=True):
            measured = [cell if isinstance(cell, Measurement) else None for cell in cells]
            flat[column.label] = [cell.value if isinstance(cell, Measurement) else cell for cell in cells]
            if any(measured):
                intervals = [(each and each.interval) or (None, None) for each in measured]
                flat[f"{column.label}, low"] = [low for low, _ in intervals]
                flat[f"{column.label}, high"] = [high for _, high in intervals]
                flat[f"{column.label}, n"] = [each and each.n for each in measured]
        pd.DataFrame(flat, dtype=object).to_csv(folder / f"{self.name}.csv", index=False)

    def write_latex(self, folder: Path) -> None:
        """Write `<name>.tex` into `folder`: a `tabular` for a paper, which needs the package booktabs."""
        (folder / f"{self.name}.tex").write_text(self.latex(), encoding="utf-8")

    def latex(self) -> str:
        """Return the table in LaTeX; over seeds mean ± standard deviation, else the value with its interval."""
        frame = self.frame
        frame.columns = self._latex_columns()
        for index, column in enumerate(frame.columns):
            frame[column] = [escape_latex(self._latex_text(cell, index)) for cell in frame[column]]
        alignment = "".join("l" if text or not index else "r" for index, text in enumerate(self.textual))
        frame = frame.reset_index(drop=True)
        style = frame.style.hide(axis="index")
        lines = style.to_latex(column_format=alignment, hrules=True, multicol_align="c").splitlines()
        comment = f"% {self.title}. {self.note}".replace("\n", " ")
        return "\n".join([comment, *self._with_headings(lines), ""])

    def _latex_columns(self) -> pd.Index:
        names = [escape_latex(column.name) for column in self.columns]
        if not any(column.group for column in self.columns):
            return pd.Index(names)
        return pd.MultiIndex.from_tuples(
            [(escape_latex(c.group), name) for c, name in zip(self.columns, names, strict=True)]
        )

    def _latex_text(self, cell: Cell, column: int) -> str:
        return plus_minus(cell) if isinstance(cell, Measurement) else self.text(cell, column)

    def _with_headings(self, lines: Sequence[str]) -> list[str]:
        """Return the lines of a `tabular` with a line for each heading above the rows of its section."""
        start = lines.index(r"\midrule") + 1 if r"\midrule" in lines else lines.index(r"\toprule") + 2
        found = list(lines[:start])
        for index, section in enumerate(self.sections):
            if section.heading:
                found += [r"\addlinespace"] if index else []
                found.append(
                    rf"\multicolumn{{{len(self.columns)}}}{{l}}{{\emph{{{escape_latex(section.heading)}}}}} \\"
                )
            found += lines[start : start + len(section.rows)]
            start += len(section.rows)
        return [*found, *lines[start:]]

    def markdown(self) -> str:
        """Return the table in Markdown; the heading of a section is a row of the table."""
        lines = [[column.label for column in self.columns], ["---"] * len(self.columns)]
        for section in self.sections:
            if section.heading:
                lines.append([f"*{escape_markdown(section.heading)}*", *[""] * (len(self.columns) - 1)])
            for row in section.rows:
                lines.append([escape_markdown(self.text(cell, index)) for index, cell in enumerate(row)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def columns(*names: str, exact: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return columns of these names without shared headings."""
    return tuple(Column(name, exact=name in exact) for name in names)


def distinct(headings: Sequence[str], details: Sequence[str]) -> list[str]:
    """Return the headings; to those that occur more than once, their detail is added."""
    return [
        f"{heading}, {detail}" if headings.count(heading) > 1 and detail else heading
        for heading, detail in zip(headings, details, strict=True)
    ]


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is."""
    for sign in "\\|<>*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "×": r"$\times$", "→": r"$\to$", "α": r"$\alpha$", "<": "$<$", ">": "$>$", "≥": r"$\ge$", "≤": r"$\le$", "—": "---",
    "–": "--", "’": "'", "…": r"\dots{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}  # fmt: skip


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(LATEX.get(sign, sign) for sign in text).replace("\n", " ")


def plus_minus(measurement: Measurement) -> str:
    """Return mean and standard deviation over seeds, "25.0 ± 1.0 (3 seeds)"; else the value with its interval."""
    if measurement.over != "seeds" or measurement.deviation is None:
        return with_interval(measurement)
    return f"{number(measurement.value)} ± {number(measurement.deviation)} ({measurement.n} seeds)"


def sample(measurement: Measurement) -> str:
    """Return the number of what an interval is over: "3 seeds", "3,925 images"; empty for what is computed."""
    if measurement.over in ("computed", "counted"):
        return ""
    return f"{measurement.n:,} {measurement.over if measurement.n != 1 else measurement.over.removesuffix('s')}"


def with_interval(measurement: Measurement, decimals: int | None = 1, unit: str = "") -> str:
    """Return a measured value with its interval, if that is not empty: "37.6% [37.3, 37.8]"."""
    value = {1: "> ", -1: "< ", 0: ""}[measurement.bound] + number(measurement.value, decimals) + unit
    if measurement.interval and measurement.interval[0] < measurement.interval[1]:
        value += f" [{', '.join(number(end, decimals) for end in measurement.interval)}]"
    return value
