"""Convert a voltage over the write path to a current and back: `V = I R_state(V)`.

    R_P                                            at any bias
    R_AP(V) = R_P (1 + TMR / (1 + (V / V_half)^2))    V_half is `tmr_half_voltage`

The state is the state before the reversal, because the current in this state causes the reversal.
The drive of a three-terminal device flows through the channel, whose resistance does not depend on
the state.
"""

import keras
import numpy as np
from keras import ops

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.physics.device import DeviceLike, checked_state, get_device
from spinkeras.physics.laws import stop_gradient


def current_of_voltage(voltage: Array, device: DeviceLike, state: str | None = None) -> Array:
    """Current in A that a voltage over the write path drives, `V / R_state(V)`.

    A three-terminal device has the `write_resistance` in place of `R_state`.

    Args:
        voltage: V, scalar, array or tensor, of either sign.
        device: `MTJDevice` or preset name.
        state: `"parallel"` or `"antiparallel"`. Default `None`: the device's `initial_state`.

    Raises:
        ValueError: for another state, and a voltage that is not a number.

    Example:

    >>> from spinkeras.physics import current_of_voltage
    >>> for state in ("parallel", "antiparallel"):
    ...     print(round(float(current_of_voltage(0.5, "stt_reference", state)) * 1e6, 2))  # uA
    62.83
    41.89
    """
    device = get_device(device)
    _, voltage = namespace(checks.values("voltage", voltage, "V"))
    if device.write_resistance is not None:
        return voltage / device.write_resistance
    if _checked(state, device) == "parallel":
        return voltage / device.resistance_parallel
    bias = voltage / device.tmr_half_voltage
    return voltage / (device.resistance_parallel * (1 + device.tmr / (1 + bias * bias)))


def voltage_of_current(current: Array, device: DeviceLike, state: str | None = None) -> Array:
    """Voltage in V over the write path at a given current, the inverse of `current_of_voltage`.

    Args:
        current: A, scalar, array or tensor, of either sign.
        device: `MTJDevice` or preset name.
        state: `"parallel"` or `"antiparallel"`. Default `None`: the device's `initial_state`.

    Raises:
        ValueError: for another state, and a current that is not a number.

    Example:

    >>> from spinkeras.physics import current_of_voltage, voltage_of_current
    >>> volts = voltage_of_current(50e-6, "stt_reference", "antiparallel")
    >>> round(float(current_of_voltage(volts, "stt_reference", "antiparallel")) * 1e6, 9)
    50.0
    """
    device = get_device(device)
    xp, current = namespace(checks.values("current", current, "A"))
    if device.write_resistance is not None:
        return current * device.write_resistance
    parallel = device.resistance_parallel
    if _checked(state, device) == "parallel":
        return current * parallel
    return current * antiparallel_by(xp, current, parallel, device.tmr, device.tmr_half_voltage)


def antiparallel_by(xp, current, parallel, tmr, half_voltage):
    """`R_AP` in ohm under the bias that a current produces.

    Args:
        xp: `numpy` or `keras.ops`.
        current: A.
        parallel, tmr, half_voltage: `R_P` in ohm, TMR as a ratio, `V_half` in V of the device.
    """
    # v = V / V_half is the one root of v^3 - a v^2 + v - a (1 + TMR) = 0. Three steps of third
    # order reach 1e-11 for every TMR, with one division each; the last step carries the gradient.
    # At the limit of `a` the rest of the TMR is 1e-12; powers of larger numbers would overflow.
    a = xp.minimum(xp.abs(current * parallel) / half_voltage, 1e6)
    top = a * (1 + tmr)
    v = a * (1 + tmr / (1 + a * top))
    for _ in range(3):
        v = stop_gradient(xp, v)
        value = ((v - a) * v + 1) * v - top
        slope = (3 * v - 2 * a) * v + 1
        v = v - value * slope / (slope * slope - value * (3 * v - a))
    return parallel * (1 + tmr / (1 + v * v))


def namespace(value, factor=1.0):
    """`keras.ops` and the value if the value or the factor is a tensor, else NumPy and an array."""
    kinds = (keras.Variable, keras.KerasTensor)
    if any(ops.is_tensor(v) or isinstance(v, kinds) for v in (value, factor)):
        return ops, value
    return np, np.asarray(value, "float64")


def _checked(state, device):
    return device.initial_state if state is None else checked_state("state", state)
