"""Results as tables: a data frame, or a CSV file."""

import csv
import io

import numpy as np

from spinkeras import files


class Table:
    """Base class of a result with rows; a subclass defines `columns`."""

    def columns(self) -> dict:
        """Columns of equal length by name; the unit is at the end of a name."""
        raise NotImplementedError

    def to_dataframe(self):
        """The rows as a `pandas.DataFrame`; see `columns` for their names and units."""
        import pandas

        return pandas.DataFrame(self.columns())

    def to_csv(self, path):
        """Write the rows to a CSV file (UTF-8, names in the first line), with every digit.

        An existing file of that name is replaced.

        Args:
            path: path of the file.
        """
        columns = self.columns()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        # Plain Python values: NumPy prints a float32 with too few digits for a float64.
        writer.writerows(zip(*(np.asarray(values).tolist() for values in columns.values())))
        files.write(path, text.getvalue())
