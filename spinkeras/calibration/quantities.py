"""The columns of a table as numbers in SI units, and refusals that name a row."""

import numpy as np

from spinkeras.calibration.cells import numbers


class Quantities:
    """Numbers of a table by quantity, in SI units.

    Attributes:
        cells: `Cells` of the table.
        columns: `{quantity: Column}` of the columns in use.
        values: `{quantity: array of shape (rows,)}`.
        rows: number of rows.

    Raises:
        ValueError: for a table without rows, and a cell that is not a finite number.
    """

    def __init__(self, cells, columns):
        self.cells, self.columns = cells, columns
        self._read = {q: numbers(q, column.name, cells) for q, column in columns.items()}
        self.values = {
            q: read * columns[q].factor + columns[q].offset for q, read in self._read.items()
        }
        self.rows = len(next(iter(self.values.values())))
        if self.rows == 0:
            raise ValueError(
                f"{cells.where} has no rows; give one row per current and pulse width."
            )
        for quantity, values in self.values.items():
            self.refuse(
                ~np.isfinite(values), quantity, "is not a finite number; leave out such rows"
            )

    def fill(self, quantity, value):
        """One value in all rows, which the caller states."""
        self.values[quantity] = np.full(self.rows, value)

    def refuse(self, bad, quantity, rule):
        """Raise an error for the first bad row, with its number as the table gives it."""
        if not np.any(bad):
            return
        index = int(np.flatnonzero(bad)[0])
        more = f" ({np.sum(bad)} such rows)" if np.sum(bad) > 1 else ""
        name = self.columns[quantity].name if quantity in self.columns else quantity
        shown = self._read.get(quantity, self.values[quantity])[index]
        where = f"{self.cells.where}, {self.cells.row(index)}"
        raise ValueError(f"{where}: {name} = {shown:g} {rule}{more}.")
