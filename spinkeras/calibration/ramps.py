"""Converts ramps of the current, with one switching current each, to trials of short pulses.

A ramp of the rate `dI/dt` acts like a series of pulses of rising current: it spends the time `t_p`
in the interval from `I - dI/2` to `I + dI/2`. If `n` ramps reach the interval, `k` of them switch
in it. So the interval is a setting with `n` trials and `k` switched pulses at the current `I`:

    P(I, t_p) = k / n,    t_p = dI / (dI/dt),    that is a rate  -ln(1 - k / n) / t_p

This is the estimate of Fulton and Dunkleberger. In a staircase each step is such a pulse.

The estimate holds for thermal activation, not for ballistic reversal within nanoseconds. The
switching rate must hardly change within an interval. The magnetisation must follow the current,
that is, the dwell must be long compared with the damping time.

Reference: T. A. Fulton and L. N. Dunkleberger, Phys. Rev. B 9, 4760 (1974), equation 8.
"""

import numpy as np

from spinkeras import checks
from spinkeras.calibration.conditions import groups, in_words
from spinkeras.notices import warn

_FINE = 0.25  # interval as a fraction of the standard deviation of the switching currents
_COARSE = 0.5  # fraction from which the switching rate changes too much within an interval
_LONGEST, _SHORTEST = 1e-2, 1e-11  # s, limits of the pulse width in a table
_MOST = 100_000  # intervals


def counts(drive, held, ramp, unit):
    """Settings and counts of pulses, from the drives at which ramps switched.

    Args:
        drive: currents or voltages, > 0, one per ramp.
        held: conditions of the ramps, columns by name (`calibration.conditions`).
        ramp: `{"rate": ...}` or `{"step": ..., "dwell": ...}`, in the unit of the drive.
        unit: unit of the drive, A or V.

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
                f"{len(own)} ramps{f' at {where}' if where else ''} are too few for a "
                "distribution of switching currents; give 10 or more."
            )
        width = step
        if width is None:
            spread = np.std(own)
            if spread == 0:
                raise ValueError(
                    f"All {len(own)} ramps switched at {own[0]:g} {unit}, so they show no "
                    "distribution; record the switching currents with a finer resolution."
                )
            width = min(_FINE * spread, rate * _LONGEST)
        # A staircase switches on its steps; recorded drives may be rounded to such steps, too.
        grid = _resolution(own) if step is None else step
        if grid:
            width = grid * max(1, round(width / grid))
        if step is None and width > _COARSE * spread:
            warn(
                f"The switching drives are recorded in steps of {grid:.3g} {unit}, but their "
                f"standard deviation is only {spread:.3g} {unit}. The switching rate changes "
                "within a step, so the fit is biased; record the drives with a finer resolution."
            )
        parts.append(_intervals(own, width, grid / 2 or 1e-9 * width, unit))
        count = len(parts[-1][0])
        values = values | {"pulse_width_s": dwell or width / rate}
        others.append({name: np.full(count, value) for name, value in values.items()})
    middle, switched, trials = (np.concatenate(column) for column in zip(*parts))
    settings = {name: np.concatenate([part[name] for part in others]) for name in others[0]}
    return middle, settings, switched, trials


def _resolution(own):
    """Step between the recorded drives, or 0 if they are not rounded to steps.

    Args:
        own: drives in rising order.
    """
    steps = np.diff(own)
    steps = steps[steps > 1e-9 * own[-1]]  # smaller ones are rounding errors of the drives
    if len(steps) + 1 > len(own) / 2:
        return 0.0
    multiples = steps / np.min(steps)
    return float(np.min(steps)) * bool(np.all(np.abs(multiples - np.round(multiples)) < 0.01))


def _intervals(own, width, below_first, unit):
    """Middles of the intervals, and counts of the ramps that switched in and reached each.

    Args:
        own: drives in rising order.
        width: width of the intervals.
        below_first: how far the first drive lies above the lower end of its interval.
        unit: unit of the drives.
    """
    origin = own[0] - below_first
    below = min(int(2 * np.std(own) / width), int(max(origin, 0) / width))
    number = np.floor((own - origin) / width).astype(int) + below
    if number[-1] > _MOST:
        raise ValueError(
            f"The ramps make {number[-1]} intervals of {width:.3g} {unit}; at most {_MOST} are "
            "allowed. The ramp is very slow or the step very small; check their units."
        )
    switched = np.bincount(number).astype("float64")
    trials = len(own) - np.concatenate([[0], np.cumsum(switched)[:-1]])
    middle = origin + (np.arange(len(switched)) - below + 0.5) * width
    return middle, switched, trials


def _shape(ramp):
    """Step, dwell in s and rate per s; the values that `ramp` does not give are `None`."""
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
