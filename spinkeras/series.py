"""Chebyshev series of NumPy arrays and Keras tensors: smooth functions of one or two numbers."""

import functools

import keras
import numpy as np
from keras import ops
from numpy.polynomial import chebyshev


def chebyshev_series(xp, x, y, tables):
    """Values of several two-dimensional Chebyshev series at the points `(x, y)`.

    Args:
        xp: `numpy` or `keras.ops`.
        x, y: scaled coordinates in [-1, 1], same shape.
        tables: dictionary of coefficient tables, rows for `x`, columns for `y`.

    Returns:
        One value array per table.
    """
    tables = list(tables.values())
    series = functools.partial(_stacked_series, xp, tables=tables)
    if xp is not np and keras.backend.backend() == "tensorflow":  # others compile it whole
        series = _differentiable_series(tables)
    values = series(x, y)
    return [values[k] for k in range(len(tables))]


def _differentiable_series(tables):
    """The series of tensors; its gradient is a series again, shorter than that of every step."""

    @ops.custom_gradient
    def series(x, y):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            slopes = [chebyshev.chebder(table, axis=axis) for axis in (0, 1) for table in tables]
            slopes = _differentiable_series(slopes)(x, y)
            count = len(tables)
            return ops.sum(upstream * slopes[:count], 0), ops.sum(upstream * slopes[count:], 0)

        return _stacked_series(ops, x, y, tables), gradient

    return series


def _stacked_series(xp, x, y, tables):
    rows, columns = (max(table.shape[axis] for table in tables) for axis in (0, 1))
    padded = [np.pad(t, ((0, rows - t.shape[0]), (0, columns - t.shape[1]))) for t in tables]
    matrix = np.concatenate(padded, axis=1).T
    if xp is not np:
        matrix = ops.convert_to_tensor(matrix, x.dtype)
    # Terms first, points last: long rows, and one product for all tables.
    in_y = xp.matmul(matrix, xp.reshape(_chebyshev_polynomials(xp, x, rows), (rows, -1)))
    polynomials = xp.reshape(_chebyshev_polynomials(xp, y, columns), (columns, -1))
    values = xp.sum(xp.reshape(in_y, (len(tables), columns, -1)) * polynomials, axis=1)
    return xp.reshape(values, (len(tables), *(np.shape(x) if xp is np else ops.shape(x))))


def _chebyshev_polynomials(xp, x, count):
    values = [xp.ones_like(x), x]
    while len(values) < count:
        values.append(2 * x * values[-1] - values[-2])
    return xp.stack(values)
