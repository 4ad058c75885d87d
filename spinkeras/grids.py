"""Settings that the driver can make: pulse widths in steps, gate voltages in levels.

A grid is called as `grid(xp, ratio)` with the ratio of a knob to its nominal value and returns the
nearest ratio it can make; `xp` is `numpy` or `keras.ops`.
"""

import math


def _nearest(xp, steps):
    """Nearest whole number; a tie, as between an even number of levels, goes down.

    Rounding errors must not decide one: the network counts in float32, its read-outs in float64.
    """
    return xp.round(steps - 1e-3)


class PulseGrid:
    """Multiples of the step of a pulse generator, inside the device's range.

    Args:
        device: `MTJDevice`.
        step: s, > 0.

    Raises:
        ValueError: for a step without a multiple inside `pulse_width_range`.
    """

    def __init__(self, device, step):
        shortest, longest = device.pulse_width_range
        self.step = step / device.nominal_pulse_width
        self.fewest = max(1, math.ceil(shortest / step - 1e-9))
        self.most = math.floor(longest / step + 1e-9)
        if self.fewest > self.most:
            raise ValueError(
                f"pulse_step = {step:g} s has no multiple inside the device's pulse widths "
                f"[{shortest:g}, {longest:g}] s; use a finer step."
            )

    def __call__(self, xp, ratio):
        return xp.clip(_nearest(xp, ratio / self.step), self.fewest, self.most) * self.step


class GateGrid:
    """Anisotropies at the equidistant levels of the converter that drives the gate.

    Args:
        device: `MTJDevice` with a gate.
        levels: number of levels over `gate_voltage_range`, >= 2.

    Raises:
        ValueError: for a device without a gate.
    """

    def __init__(self, device, levels):
        low, high = device.gate_voltage_range
        if device.vcma_coefficient == 0 or low == high:
            raise ValueError(
                "gate_levels needs a device with a vcma_coefficient and a gate_voltage_range."
            )
        self.highest = levels - 1
        self.lowest_voltage = low
        self.step = (high - low) / self.highest
        self.per_volt = device.anisotropy_at(1.0) / device.anisotropy - 1

    def __call__(self, xp, ratio):
        level = _nearest(xp, ((ratio - 1) / self.per_volt - self.lowest_voltage) / self.step)
        voltage = self.lowest_voltage + self.step * xp.clip(level, 0, self.highest)
        return 1 + self.per_volt * voltage
