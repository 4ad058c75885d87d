"""Ramps of the current, one switching current each, as trials of short pulses.

A ramp of the rate `dI/dt` is a row of pulses of rising current: it spends the time `t_p` in the
interval from `I - dI/2` to `I + dI/2`. Of `n` ramps that reach the interval, `k` end in it. So the
interval is a setting of `n` trials, `k` of them switched, at the current `I`:

    P(I, t_p) = k / n,    t_p = dI / (dI/dt),    that is a rate  -ln(1 - k / n) / t_p

the estimate of Fulton and Dunkleberger. In a staircase each step is such a pulse by itself. It
holds if the rate hardly changes within an interval and the magnetisation follows the current (the
dwell is long beside the damping): thermal activation, not the ballistic reversal of nanoseconds.

Reference: T. A. Fulton and L. N. Dunkleberger, Phys. Rev. B 9, 4760 (1974), equation 8.
"""

import numpy as np

from spinkeras import checks

_FINE = 0.25  # interval over the standard deviation of the switching currents
_LONGEST, _SHORTEST = 1e-2, 1e-11  # s, of a pulse of the table
_MOST = 100_000


def counts(current, gate, ramp, per_drive=1.0):
    """Settings, switched and trials, from the switching currents of ramps.

    Args:
        current: A, > 0, one of each ramp.
        gate: V, of each ramp.
        ramp: `{"rate": ...}` or `{"step": ..., "dwell": ...}`.
        per_drive: A per unit of the drive in which `ramp` is given.
    """
    step, dwell, rate = _shape(ramp, per_drive)
    parts = []
    for value in np.unique(gate):
        own = np.sort(current[gate == value])
        if len(own) < 10:
            raise ValueError(
                f"{len(own)} ramps{f' at a gate voltage of {value:g} V' if value else ''} tell no "
                "distribution of switching currents; give 10 or more."
            )
        width = step
        if width is None:
            spread = np.std(own)
            if spread == 0:
                raise ValueError(
                    f"All {len(own)} ramps switched at {own[0]:g} A, so they tell no distribution; "
                    "record the switching currents with a finer resolution."
                )
            width = min(_FINE * spread, rate * _LONGEST)
        parts.append(_intervals(own, width, step is not None, dwell or width / rate, value))
    columns = [np.concatenate(column) for column in zip(*parts)]
    names = ("current_a", "pulse_width_s", "gate_voltage_v")
    return dict(zip(names, columns[:3])), columns[3], columns[4]


def _intervals(own, width, staircase, dwell, gate):
    # Of a staircase the currents themselves are the steps.
    origin = own[0] - width / 2 if staircase else own[0] - 1e-9 * width
    below = min(int(2 * np.std(own) / width), int(max(origin, 0) / width))
    number = np.floor((own - origin) / width).astype(int) + below
    if number[-1] > _MOST:
        raise ValueError(
            f"The ramps make {number[-1]} intervals of {width:.3g} A; {_MOST} are the most. A ramp "
            "this slow, or a step this small, is not what the unit says; check it."
        )
    switched = np.bincount(number).astype("float64")
    trials = len(own) - np.concatenate([[0], np.cumsum(switched)[:-1]])
    middle = origin + (np.arange(len(switched)) - below + 0.5) * width
    same = np.ones(len(switched))
    return middle, dwell * same, gate * same, switched, trials


def _shape(ramp, per_drive):
    """Step in A and dwell in s, or rate in A/s; the others `None`."""
    if not isinstance(ramp, dict) or set(ramp) not in ({"rate"}, {"step", "dwell"}):
        raise ValueError(
            f'ramp = {ramp!r} must be {{"rate": A/s or V/s}} or {{"step": A or V, "dwell": s}}.'
        )
    hint = "> 0, in SI units"
    if "rate" in ramp:
        rate = checks.number("ramp['rate']", ramp["rate"], "A/s or V/s", 1e-12, 1e12, hint)
        return None, None, rate * per_drive
    step = checks.number("ramp['step']", ramp["step"], "A or V", 1e-12, 10.0, hint)
    dwell = checks.number("ramp['dwell']", ramp["dwell"], "s", _SHORTEST, _LONGEST, hint)
    return step * per_drive, dwell, None
