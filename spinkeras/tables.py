"""Results as tables: a data frame, or a CSV file."""

import csv
import io

import numpy as np

from spinkeras import files


class Table:
    """A result with rows. Classes give `columns`."""

    def columns(self) -> dict:
        """Columns of equal length by name; the unit is at the end of a name."""
        raise NotImplementedError

    def to_dataframe(self):
        """The rows as a `pandas.DataFrame`; see `columns` for their names and units.

        Raises:
            ImportError: without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_dataframe() needs pandas: pip install pandas. to_csv() does without."
            ) from error
        return pandas.DataFrame(self.columns())

    def to_csv(self, path):
        """Write the rows to a CSV file (UTF-8, names in the first line), every digit kept.

        A file of that name is replaced, as a whole.

        Args:
            path: of the file.
        """
        columns = self.columns()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        # As plain Python values: NumPy's own text of a float32 would be read as another float64.
        writer.writerows(zip(*(np.asarray(values).tolist() for values in columns.values())))
        files.write(path, text.getvalue())
