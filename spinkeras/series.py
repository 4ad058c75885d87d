"""Chebyshev series of NumPy arrays and Keras tensors: smooth functions of two numbers."""

import keras
import numpy as np
from keras import ops


def chebyshev_series(xp, x, y, tables, derivatives=False):
    """Values of several two-dimensional Chebyshev series at the points `(x, y)`.

    Args:
        xp: `numpy` or `keras.ops`.
        x, y: scaled coordinates in [-1, 1], same shape.
        tables: list of coefficient tables, rows for `x`, columns for `y`.
        derivatives: whether to give the derivatives as well.

    Returns:
        Array of shape `(tables, *points)`; with derivatives three of them: the values, their
        derivatives by `x` and by `y`.
    """
    rows, columns = (max(table.shape[axis] for table in tables) for axis in (0, 1))
    padded = [np.pad(t, ((0, rows - t.shape[0]), (0, columns - t.shape[1]))) for t in tables]
    matrix = np.concatenate(padded, axis=1).T  # (tables * columns, rows)
    shape = tuple(np.shape(x) if xp is np else ops.shape(x))
    in_x = _polynomials(xp, x, rows, derivatives)
    in_y = _polynomials(xp, y, columns, derivatives)
    sums = [xp.reshape(_product(xp, matrix, p), (len(tables), columns, -1)) for p in in_x]

    def series(k, m):
        value = xp.sum(sums[k] * xp.reshape(in_y[m], (columns, -1)), axis=1)
        return xp.reshape(value, (len(tables), *shape))

    return (series(0, 0), series(1, 0), series(0, 1)) if derivatives else series(0, 0)


def _product(xp, matrix, polynomials):
    """`matrix @ polynomials`, exact to the precision of the numbers on every device.

    Not a matrix product in single precision: on GPUs that rounds to three digits (TF32).
    """
    flat = xp.reshape(polynomials, (polynomials.shape[0], -1))
    if xp is np:
        return matrix @ flat
    matrix = ops.convert_to_tensor(matrix, flat.dtype)
    if keras.backend.standardize_dtype(flat.dtype) == "float64":
        return ops.matmul(matrix, flat)
    return ops.sum(matrix[:, :, None] * flat, axis=1)


def _polynomials(xp, x, count, derivatives):
    """`T_n(x)` and, where asked for, `T_n'(x)`, each of shape `(count, *x.shape)`."""
    values, slopes = [xp.ones_like(x), x], [xp.zeros_like(x), xp.ones_like(x)]
    while len(values) < count:
        slopes.append(2 * (values[-1] + x * slopes[-1]) - slopes[-2])
        values.append(2 * x * values[-1] - values[-2])
    return [xp.stack(values), xp.stack(slopes)] if derivatives else [xp.stack(values)]
