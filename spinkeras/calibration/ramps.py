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
from spinkeras.calibration.conditions import groups, in_words

_FINE = 0.25  # interval over the standard deviation of the switching currents
_LONGEST, _SHORTEST = 1e-2, 1e-11  # s, of a pulse of the table
_MOST = 100_000


def counts(drive, held, ramp, unit):
    """Settings, switched and trials, from the drives at which ramps switched.

    Args:
        drive: currents or voltages, > 0, one of each ramp.
        held: what else differs between ramps, columns by name (`calibration.conditions`).
        ramp: `{"rate": ...}` or `{"step": ..., "dwell": ...}`, in the unit of the drive.
        unit: of the drive, A or V.

    Returns:
        Drives, the other columns of the settings by name, switched, and trials.
    """
    step, dwell, rate = _shape(ramp)
    parts, others = [], []
    for values, rows in groups(held):
        own = np.sort(drive[rows])
        if len(own) < 10:
            where = in_words(values, held)
            raise ValueError(
                f"{len(own)} ramps{f' at {where}' if where else ''} tell no "
                "distribution of switching currents; give 10 or more."
            )
        width = step
        if width is None:
            spread = np.std(own)
            if spread == 0:
                raise ValueError(
                    f"All {len(own)} ramps switched at {own[0]:g} {unit}, so they tell no "
                    "distribution; record the switching currents with a finer resolution."
                )
            width = min(_FINE * spread, rate * _LONGEST)
        parts.append(_intervals(own, width, step is not None, unit))
        count = len(parts[-1][0])
        values = values | {"pulse_width_s": dwell or width / rate}
        others.append({name: np.full(count, value) for name, value in values.items()})
    middle, switched, trials = (np.concatenate(column) for column in zip(*parts))
    settings = {name: np.concatenate([part[name] for part in others]) for name in others[0]}
    return middle, settings, switched, trials


def _intervals(own, width, staircase, unit):
    # Of a staircase the drives themselves are the steps.
    origin = own[0] - width / 2 if staircase else own[0] - 1e-9 * width
    below = min(int(2 * np.std(own) / width), int(max(origin, 0) / width))
    number = np.floor((own - origin) / width).astype(int) + below
    if number[-1] > _MOST:
        raise ValueError(
            f"The ramps make {number[-1]} intervals of {width:.3g} {unit}; {_MOST} are the most. "
            "A ramp this slow, or a step this small, is not what the unit says; check it."
        )
    switched = np.bincount(number).astype("float64")
    trials = len(own) - np.concatenate([[0], np.cumsum(switched)[:-1]])
    middle = origin + (np.arange(len(switched)) - below + 0.5) * width
    return middle, switched, trials


def _shape(ramp):
    """Step and dwell in s, or rate per s; the others `None`."""
    if not isinstance(ramp, dict) or set(ramp) not in ({"rate"}, {"step", "dwell"}):
        raise ValueError(
            f'ramp = {ramp!r} must be {{"rate": A/s or V/s}} or {{"step": A or V, "dwell": s}}.'
        )
    hint = "> 0, in SI units"
    if "rate" in ramp:
        rate = checks.number("ramp['rate']", ramp["rate"], "A/s or V/s", 1e-12, 1e12, hint)
        return None, None, rate
    step = checks.number("ramp['step']", ramp["step"], "A or V", 1e-12, 10.0, hint)
    dwell = checks.number("ramp['dwell']", ramp["dwell"], "s", _SHORTEST, _LONGEST, hint)
    return step, dwell, None
