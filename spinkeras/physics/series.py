"""Chebyshev series for NumPy arrays and Keras tensors: smooth functions of two numbers."""

import keras
import numpy as np
from keras import ops
from numpy.polynomial import chebyshev


def chebyshev_series(xp, x, y, tables, derivatives=False):
    """Values of several two-dimensional Chebyshev series at the points `(x, y)`.

    Args:
        xp: `numpy` or `keras.ops`.
        x, y: scaled coordinates in [-1, 1], same shape.
        tables: list of arrays of coefficients, each `(series, rows, columns)` with rows for `x`
            and columns for `y`. The series in one array have the same size.
        derivatives: whether to return the derivatives, too.

    Returns:
        Array of shape `(series, *points)`. With derivatives the shape is `(3, series, *points)`:
        first the values, then the derivatives by `x`, then those by `y`.
    """
    shape = tuple(np.shape(x) if xp is np else ops.shape(x))
    rows, columns = (max(table.shape[axis] for table in tables) for axis in (1, 2))
    in_x, in_y = (_polynomials(xp, xp.reshape(z, (-1,)), n) for z, n in ((x, rows), (y, columns)))
    if derivatives:
        matrix = chebyshev.chebder(np.eye(columns)).T
        slopes = _product(xp, matrix, xp.stack(in_y[:-1]))
    values, by_y = [], []
    for table in tables:
        count, rows, columns = table.shape
        if derivatives:
            by_x = np.pad(chebyshev.chebder(table, axis=1), ((0, 0), (0, 1), (0, 0)))
            table = np.stack([table, by_x])
        matrix = np.swapaxes(table, -1, -2).reshape(-1, rows)
        sums = _product(xp, matrix, xp.stack(in_x[:rows]))
        sums = xp.reshape(sums, (1 + derivatives, count, columns, -1))
        values.append(xp.sum(sums * xp.stack(in_y[:columns]), axis=2))
        if derivatives:
            by_y.append(xp.sum(sums[:1] * slopes[:columns], axis=2))
    values = xp.concatenate(values, axis=1)
    if derivatives:
        values = xp.concatenate([values, xp.concatenate(by_y, axis=1)])
        return xp.reshape(values, (*values.shape[:2], *shape))
    return xp.reshape(values, (values.shape[1], *shape))


def _product(xp, matrix, polynomials):
    """`matrix @ polynomials` to the full precision of the dtype, also on GPUs.

    In float32 it does not use a matrix product, which GPUs round to three digits (TF32).
    """
    if xp is not np:
        matrix = ops.convert_to_tensor(matrix, polynomials.dtype)
        if keras.backend.standardize_dtype(polynomials.dtype) != "float64":
            return ops.sum(matrix[:, :, None] * polynomials, axis=1)
    return matrix @ polynomials  # ops.matmul of Keras makes float32 of float64 on PyTorch


def _polynomials(xp, x, count):
    """List of `T_0(x)` to `T_(count - 1)(x)`."""
    values, twice = [xp.ones_like(x), x], 2 * x
    while len(values) < count:
        values.append(twice * values[-1] - values[-2])
    return values
