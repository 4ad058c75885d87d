"""The law of an empirical curve's fields that is fitted to a table of switching counts.

`CurveLaw` is used like `device_law.DeviceLaw`.
"""

import numpy as np

from spinkeras.calibration.scales import MICRO, SCALES
from spinkeras.physics import empirical

# The slope of a fitted logit is at least _LEAST_GROWTH times its slope at the midpoint, so that the
# curve and the draws near it rise. Far from the midpoint it is at most _MOST_GROWTH times as steep.
_LEAST_GROWTH, _MOST_GROWTH = 0.02, 50.0
_GRID = np.outer([-1, 1], np.geomspace(0.03, 1e3, 80)).ravel()  # values of y
_SHAPE, _PLATEAUS = (
    {name + ending for name in names for ending in ("", "_rate", "_anisotropy_rate")}
    for names in (empirical.SHAPE, ("floor", "ceiling"))
)


class CurveLaw:
    """Switching probability as a function of an empirical curve's fields, on the scales of the fit.

    Args:
        base: `EmpiricalCurve` that provides the fields that are not fitted.
        device: `MTJDevice` that turns gate voltages into anisotropies, or `None`.
        table: pooled counts; the curve must rise in the range of its settings.
        scales: `SCALES` or `SIGNED`.
    """

    tolerance = 0.05  # a curve with a flat part has an excess of 0.1 or more
    cure = "State {} by fixed="

    def __init__(self, base, device, table, scales=SCALES):
        self.base, self.device, self.scales = base, device, scales
        # Check the curve at its own setting and at the middle and the corners of the table.
        ends = []
        for column in self._settings(table):
            low, high = np.min(column), np.max(column)
            ends.append(np.unique(np.round([0.0, low, (low + high) / 2, high], 9)))
        self._corners = tuple(axis.ravel() for axis in np.meshgrid(*ends))

    def probability(self, xp, values, rows):
        """As `DeviceLaw.probability`; the excess is 0 only if the curve rises everywhere."""
        fields = dict(self.base.fields())
        for name, value in values.items():
            scale = self.scales.get(name)  # floor and ceiling stay logits, as `curve_at` needs them
            fields[name] = xp.exp(value) if scale == "log" else value
            if scale == "micro":
                fields[name] = value * MICRO
        excess = 0.0
        if not _SHAPE.isdisjoint(values):
            pole = fields["c"] * fields["c"] / 4 + empirical.LEAST_REST - fields["d"]
            pole = _positive(xp, pole)
            fields["d"] = fields["d"] + pole
            lack = _lack_of_rise(xp, empirical.curve_at(xp, fields, *self._corners))
            excess = excess + xp.sum(lack + 20 * pole, axis=-1)
        if not _PLATEAUS.isdisjoint(values):
            corners = empirical.curve_at(xp, fields, *self._corners)
            overlap = corners.floor - corners.ceiling + 0.01 + 0 * corners.midpoint
            excess = excess + xp.sum(_positive(xp, overlap), axis=-1)
        curve = empirical.curve_at(xp, fields, *self._settings(rows))
        # The gradient needs the full shape even if only the slope is fitted.
        z = rows["current_a"] - curve.midpoint + 0 * curve.slope
        return curve.probability(z), excess

    def outside(self, values, rows):
        """Error message for a best fit whose excess exceeds `tolerance`."""
        return (
            f"No curve that rises with the current fits the data; the best fit is {values}. Free "
            "fewer of the shape numbers a, b, c, d and their rates, or check the table."
        )

    def _settings(self, rows):
        s = np.log(rows["pulse_width_s"] / self.base.pulse_width)
        return s, self.log_ratio(rows["gate_voltage_v"])

    def log_ratio(self, gate):
        """`ln K_eff(V_gate) / K_eff` at gate voltages in V, an array."""
        if not np.any(gate):
            return np.zeros(gate.shape)
        if self.device is None:
            raise ValueError(
                "Gate voltages need a `device`. Its vcma_coefficient, thicknesses and anisotropy "
                "convert them to anisotropies (fit_device can fit the coefficient)."
            )
        if self.device.vcma_coefficient == 0:
            raise ValueError(
                f"The device {self.device.name!r} has vcma_coefficient = 0, so a gate voltage does "
                "not change its anisotropy. Give the device its coefficient (fit_device can fit "
                "it), or leave out the gate voltages."
            )
        ratio = self.device.anisotropy_at(gate) / self.device.anisotropy
        if np.min(ratio) <= 0:
            worst = float(gate[np.argmin(ratio)])
            raise ValueError(
                f"At gate_voltage_v = {worst:g} V the anisotropy of the device would be <= 0; "
                "check its vcma_coefficient, thicknesses and anisotropy."
            )
        return np.log(ratio)


def _lack_of_rise(xp, curve):
    """An array, one value per curve: 0 if the logit is nowhere too flat or too steep."""
    a, b, c, d = (v[..., None] for v in (curve.a, curve.b, curve.c, curve.d))
    powers = 2 * a, 3 * b + a * c - d, 2 * b * c, b * d  # coefficients as in `curve.least_growth`
    y = _GRID
    if xp is np:  # add the exact extremes, which may lie between the points
        columns = np.stack([*powers[::-1], np.ones_like(d)], axis=-1)[:, 0]
        turns = [np.roots(np.polyder(column)).real for column in columns]
        y = np.concatenate([np.broadcast_to(y, (len(turns), y.size)), turns], axis=-1)
    growth = 1 + y * (powers[0] + y * (powers[1] + y * (powers[2] + y * powers[3])))
    growth = growth / (1 + y * (c + y * d)) ** 2  # slope of the logit divided by its slope at y = 0
    flat = 0.1 * xp.sum(_positive(xp, 1 - growth / _LEAST_GROWTH), axis=-1)
    steep = _positive(xp, curve.b / (_MOST_GROWTH * curve.d) - 1)
    return flat + steep


def _positive(xp, value):
    return xp.maximum(value, 0 * value)
