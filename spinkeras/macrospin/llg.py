"""Stochastic Landau-Lifshitz-Gilbert-Slonczewski equation of a macrospin, compiled.

The unit vector ``m`` of the free layer obeys, with fields in tesla,

    dm/dt = -gamma' { m x (B_eff - alpha B_dl) + m x (m x (alpha B_eff + B_dl)) }
    gamma' = gamma / (1 + alpha^2)
    B_eff = mu0Hk m_z e_z + B_x e_x + r_fl B_so e_y + B_th    anisotropy, static in-plane field,
                                                        field-like torque, thermal field   [T]
    B_dl  = B_so e_y - B_st e_z                         damping-like torques               [T]
    B_st  = hbar eta I / (2 e Ms Vol)                   of the spin-transfer torque        [T]

``B_st = alpha mu0Hk`` is the critical current. Every component of ``B_th`` is Gaussian with
variance ``2 alpha kB T / (gamma Ms Vol dt)`` (Brown 1963). Heun's predictor-corrector scheme with
the same noise in both stages converges to the Stratonovich solution, which is the physical one;
``|m| = 1`` is restored after every step.

This module does not need the rotational symmetry that ``fokker_planck`` assumes. So it checks
``fokker_planck`` independently, and it also covers spin-orbit torques, in-plane fields and single
trajectories.

Trajectories are simulated in float32, in blocks of 2048. Only their count is kept after their end.
One compiled XLA loop advances a block. It draws the noise from one combined Tausworthe generator
per trajectory (period 2^88); on a CPU this makes the whole simulation three times faster than the
counter-based generators of TensorFlow. A running trajectory takes 44 bytes: 12 for `m`, 12 for the
generator and 20 for parameters.

References: W. F. Brown, Phys. Rev. 130, 1677 (1963); J. L. Garcia-Palacios and F. J. Lazaro, Phys.
Rev. B 58, 14937 (1998) for the Stratonovich-Heun scheme; P. L'Ecuyer, Math. Comp. 65, 203 (1996)
for the generator.
"""

import dataclasses
import functools
import math

import keras
import numpy as np
from scipy import constants, special

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.intervals import clopper_pearson
from spinkeras.notices import warn
from spinkeras.physics.device import GYROMAGNETIC_RATIO, DeviceLike, MTJDevice, get_device

BLOCK = 2048  # trajectories advanced together; their state fits into the processor's cache
COARSE_ROTATION = 0.08  # rad per step; above it P is biased by more than 0.003
_ROTATION = 0.04
_RECORDS = 201
_SEGMENT = 20_000
_LONG_RUN = 1e9  # steps times trajectories; about 15 s on one core


@dataclasses.dataclass(frozen=True)
class SwitchingResult:
    """Outcome of `simulate_switching`; arrays have the broadcast shape of its settings.

    Attributes:
        probability: fraction of the trajectories that ended reversed (`m_z < 0`).
        low, high: exact (Clopper-Pearson) binomial confidence interval of the probability.
        switched: number of trajectories that ended reversed.
        trajectories: number of simulated trajectories per setting.
        confidence: confidence level of the interval.
        time_step: largest time step used, in s.
        time: times in s, shape `(..., 201)`, or `None` if no trajectories were kept.
        magnetization: unit vectors, shape `(..., kept, 201, 3)`, or `None`.

    Example:

    >>> from spinkeras.macrospin import llg
    >>> result = llg.simulate_switching(
    ...     "stt_reference", 73.5e-6, 2e-9, trajectories=100, return_trajectories=1
    ... )
    >>> result.trajectories, result.magnetization.shape  # x, y and z at 201 times
    (100, (1, 201, 3))
    """

    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray
    switched: np.ndarray
    trajectories: int
    confidence: float
    time_step: float
    time: np.ndarray | None = None
    magnetization: np.ndarray | None = None


def simulate_switching(
    device: DeviceLike,
    current: Array,
    pulse_width: Array,
    anisotropy: Array = None,
    trajectories: int = 10_000,
    seed: int = 0,
    *,
    initial_anisotropy: Array = None,
    spin_orbit_field: Array = 0.0,
    field_like_ratio: Array = 0.0,
    in_plane_field: Array = 0.0,
    relaxation_time: float = 0.0,
    time_step: float | None = None,
    return_trajectories: int = 0,
    confidence: float = 0.95,
    progress: bool | None = None,
) -> SwitchingResult:
    """Fraction of simulated trajectories that one rectangular pulse reverses.

    Every trajectory starts from the thermal equilibrium of the well at `m_z > 0`. The settings
    (`current`, `pulse_width`, the anisotropies and fields) broadcast against each other.

    Args:
        device: `MTJDevice` or preset name.
        current: A, through the junction. Positive current favours reversal.
        pulse_width: s, > 0.
        anisotropy: J/m^3, > 0, `K_eff` during the pulse. With a gate voltage give
            `device.anisotropy_at(gate_voltage)`. Default: the anisotropy of the device.
        trajectories: number per setting, 1 to 1e8. Default 10000, with which the 95 % interval is
            +-0.01 at most.
        seed: integer >= 0; the same call with the same seed gives the same result. Default 0.
        initial_anisotropy: J/m^3, > 0, `K_eff` before the pulse. Default: `anisotropy`, for a gate
            voltage that was set long before the pulse; the closed form and `fokker_planck` assume
            this. Give `device.anisotropy` for a gate that is pulsed together with the current.
        spin_orbit_field: T, damping-like spin-orbit field along y during the pulse; the function
            `spin_orbit_field` computes it. Default 0.
        field_like_ratio: ratio of field-like to damping-like torque, dimensionless, any sign. A
            field of `field_like_ratio * spin_orbit_field` then acts along y during the pulse.
            Default 0.
        in_plane_field: T, static field along x, |B_x| < mu0Hk. Default 0. With
            `spin_orbit_field > 0` a negative field favours reversal to `m_z < 0`.
        relaxation_time: s, >= 0, time without current before the state is read. Default 0. After a
            spin-orbit pulse use some nanoseconds, because this pulse leaves `m` near the plane.
        time_step: s. Default: the largest field turns `m` by 0.04 rad per step. The step is
            reduced so that the pulse has a whole number of steps.
        return_trajectories: number of trajectories per setting to keep, at 201 times. Default 0.
        confidence: confidence level of the interval, in (0, 1). Default 0.95.
        progress: whether to show a progress bar. Default `None`: for runs of more than about 15 s.

    Returns:
        `SwitchingResult`.

    Raises:
        ValueError: for a setting that is not finite or outside its range.

    Warns:
        UserWarning: if `time_step` turns `m` by more than 0.08 rad per step, which biases the
            probability (by 0.04 at 0.19 rad and 0.18 at 0.39 rad for `stt_reference`).

    Example:

    >>> from spinkeras.macrospin import llg
    >>> result = llg.simulate_switching(
    ...     "stt_reference", 73.5e-6, 2e-9, trajectories=2000, confidence=0.999
    ... )
    >>> bool(result.low < 0.5 < result.high)
    True
    """
    device = get_device(device)
    settings = _check_settings(
        device,
        current=current,
        pulse_width=pulse_width,
        anisotropy=anisotropy,
        initial_anisotropy=initial_anisotropy,
        spin_orbit_field=spin_orbit_field,
        field_like_ratio=field_like_ratio,
        in_plane_field=in_plane_field,
    )
    trajectories = checks.whole("trajectories", trajectories, 1, 100_000_000)
    seed = checks.whole("seed", seed, 0, 2**63 - 1)
    kept = checks.whole("return_trajectories", return_trajectories, 0, trajectories)
    confidence = checks.number("confidence", confidence, "(a probability)", hint="95 % is 0.95")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence:g} is outside (0, 1); 95 % is 0.95.")
    relaxation_time = checks.number("relaxation_time", relaxation_time, "s", hint="3 ns is 3e-9")
    if relaxation_time < 0:
        raise ValueError(f"relaxation_time = {relaxation_time} s must be finite and >= 0 s.")
    time_step = _choose_step(device, settings, time_step)

    shape = settings["current"].shape
    flat = {name: value.ravel() for name, value in settings.items()}
    plans = [
        _Plan(flat, index, trajectories, kept, time_step, relaxation_time)
        for index in _same_width(flat["pulse_width"])
    ]
    work = sum(plan.lanes * plan.steps for plan in plans)
    bar = None
    if progress or (progress is None and work > _LONG_RUN):
        bar = keras.utils.Progbar(sum(plan.calls for plan in plans), unit_name="segment")

    switched = np.zeros(flat["current"].size, "int64")
    time = np.empty((switched.size, _RECORDS if kept else 0))
    magnetization = np.empty((switched.size, kept, _RECORDS, 3), "float32")
    for number, plan in enumerate(plans):
        if kept:
            time[plan.index] = plan.marks * plan.time_step
        for first in range(0, plan.lanes, BLOCK):
            rng = np.random.default_rng([seed, number, first // BLOCK])
            end, path = _run_block(device, plan, first, rng, bar)
            owner = plan.index[plan.owner(first)]
            switched += np.bincount(owner, end[: owner.size, 2] < 0, switched.size).astype(int)
            if kept:
                lane = first + np.arange(owner.size)
                rank = lane % trajectories
                keep = rank < kept
                magnetization[owner[keep], rank[keep]] = path[: owner.size][keep]

    low, high = clopper_pearson(switched, trajectories, confidence)
    return SwitchingResult(
        probability=(switched / trajectories).reshape(shape),
        low=low.reshape(shape),
        high=high.reshape(shape),
        switched=switched.reshape(shape),
        trajectories=trajectories,
        confidence=float(confidence),
        time_step=max((plan.time_step for plan in plans), default=time_step),
        time=time.reshape(*shape, _RECORDS) if kept else None,
        magnetization=magnetization.reshape(*shape, kept, _RECORDS, 3) if kept else None,
    )


def spin_orbit_field(current_density: Array, spin_hall_angle: float, device: DeviceLike) -> Array:
    """Damping-like spin-orbit field `B_so = hbar theta_SH j / (2 e Ms t_f)` in T.

    Without an in-plane field, `B_so > mu0Hk / 2` turns the magnetisation away from its axis.

    Args:
        current_density: A/m^2 in the heavy-metal channel, scalar or array.
        spin_hall_angle: effective spin Hall angle `theta_SH`, dimensionless, -1 to 1.
        device: `MTJDevice` or preset name (saturation magnetisation and thickness).

    Raises:
        ValueError: for a value that is not a number, and an angle outside [-1, 1].

    Example:

    >>> from spinkeras.macrospin import llg
    >>> round(llg.spin_orbit_field(1e12, 0.3, "stt_reference"), 4)
    0.0823

    Reference: K.-S. Lee et al., Appl. Phys. Lett. 102, 112410 (2013).
    """
    density = checks.values("current_density", current_density, "A/m^2")
    angle = checks.number("spin_hall_angle", spin_hall_angle, "(a ratio)", -1, 1, "30 % is 0.3")
    device = get_device(device)
    areal_moment = device.saturation_magnetization * device.thickness
    return constants.hbar * angle * density / (2 * constants.e * areal_moment)


# --- the equation, compiled ----------------------------------------------------------------------


def _torque(x, y, z, field, spin, damping):
    """`-m x (B_eff - alpha B_dl + m x (alpha B_eff + B_dl))`; `B_dl` has no x component."""
    (bx, by, bz), (sy, sz) = field, spin
    cx, cy, cz = damping * bx, damping * by + sy, damping * bz + sz
    ux = bx + y * cz - z * cy
    uy = by - damping * sy + z * cx - x * cz
    uz = bz - damping * sz + x * cy - y * cx
    return z * uy - y * uz, x * uz - z * ux, y * ux - x * uy


@functools.cache
def _advance():
    """The compiled loop, which advances `m` and the random generators of a block by some steps.

    It takes fields as rotations per step, `gamma' B dt`, so it needs no units.
    """
    import tensorflow as tf  # here, so that `import spinkeras` stays fast on other backends

    def bits(state):
        """Next words of L'Ecuyer's three-component Tausworthe generator (taus88)."""
        shifts = ((13, 19, 12, 0xFFFFFFFE), (2, 25, 4, 0xFFFFFFF8), (3, 11, 17, 0xFFFFFFF0))
        left, right = tf.bitwise.left_shift, tf.bitwise.right_shift
        new = []
        for word, (a, b, c, mask) in zip(state, shifts):
            a, b, c, mask = (tf.constant(v, tf.uint32) for v in (a, b, c, mask))
            new.append(right(left(word, a) ^ word, b) ^ left(word & mask, c))
        return tuple(new), new[0] ^ new[1] ^ new[2]

    def normal(state):
        state, word = bits(state)
        word = tf.bitwise.right_shift(word, tf.constant(9, tf.uint32))
        # The word is the mantissa of a float in [1, 2). Its last bit is set, because +-1 would
        # give infinity.
        one = tf.constant(0x3F800001, tf.uint32)
        uniform = 2 * tf.bitcast(word | one, tf.float32) - 3
        return state, math.sqrt(2) * tf.math.erfinv(uniform)

    lanes = tf.TensorSpec([BLOCK], tf.float32)
    words = tf.TensorSpec([BLOCK], tf.uint32)
    number = tf.TensorSpec([], tf.float32)
    count = tf.TensorSpec([], tf.int32)

    @tf.function(
        jit_compile=True,
        input_signature=[(lanes,) * 3, (words,) * 3, (lanes,) * 5, number, number, count],
    )
    def advance(m, generators, rotations, kick, damping, steps):
        anisotropy, transfer, orbit, field_like, in_plane = rotations
        spin = (orbit, -transfer)

        def step(k, m, state):
            x, y, z = m
            state, noise_x = normal(state)
            state, noise_y = normal(state)
            state, noise_z = normal(state)
            bx, by, bz = kick * noise_x + in_plane, kick * noise_y + field_like, kick * noise_z
            dx, dy, dz = _torque(x, y, z, (bx, by, bz + anisotropy * z), spin, damping)
            px, py, pz = x + dx, y + dy, z + dz
            ex, ey, ez = _torque(px, py, pz, (bx, by, bz + anisotropy * pz), spin, damping)
            x, y, z = x + (dx + ex) / 2, y + (dy + ey) / 2, z + (dz + ez) / 2
            scale = tf.math.rsqrt(x * x + y * y + z * z)
            return k + 1, (x * scale, y * scale, z * scale), state

        _, m, generators = tf.while_loop(lambda k, *_: k < steps, step, (0, m, generators))
        return m, generators

    return advance


# --- one block of trajectories -------------------------------------------------------------------


class _Plan:
    """Settings with the same pulse width: their lanes, steps and marks.

    A lane is one trajectory of one setting; the lanes of a setting are next to each other. The
    marks are the steps at which the simulation stops or records.
    """

    def __init__(self, flat, index, trajectories, kept, time_step, relaxation_time):
        self.index = index
        self.settings = {name: value[index] for name, value in flat.items()}
        self.trajectories = trajectories
        self.lanes = index.size * trajectories
        width = float(self.settings["pulse_width"][0])
        pulse = max(math.ceil(width / time_step * (1 - 1e-12)), _RECORDS if kept else 1)
        self.time_step = width / pulse
        self.pulse = pulse
        self.steps = pulse + math.ceil(relaxation_time / self.time_step)
        if self.steps >= 2**31:
            raise ValueError(
                f"pulse_width = {width:g} s with steps of {self.time_step:g} s needs "
                f"{self.steps:.3g} steps, more than 2e9. Use fokker_planck for such pulses."
            )
        self.record = kept > 0
        relaxes = self.steps > pulse
        count = _RECORDS if kept else 2 + relaxes + self.steps // _SEGMENT
        marks = np.round(np.linspace(0, self.steps, count)).astype("int64")
        if relaxes:  # the pulse must end on a mark
            marks[1 + np.argmin(np.abs(marks[1:-1] - pulse))] = pulse
        self.marks = marks
        self.calls = math.ceil(self.lanes / BLOCK) * (len(marks) - 1)

    def owner(self, first):
        """Index of the setting to which each lane of the block from `first` on belongs."""
        return np.arange(first, min(first + BLOCK, self.lanes)) // self.trajectories


def _run_block(device, plan, first, rng, bar):
    """Final `m` of one block, and its path at the plan's marks if the plan records it."""
    import tensorflow as tf

    owner = plan.owner(first)
    owner = np.concatenate([owner, np.full(BLOCK - owner.size, owner[-1])])
    values = {name: value[owner] for name, value in plan.settings.items()}
    reduced = GYROMAGNETIC_RATIO / (1 + device.damping**2)
    turn = reduced * plan.time_step  # rad per T
    moment = device.saturation_magnetization * device.volume
    transfer = constants.hbar * device.spin_torque_efficiency / (2 * constants.e * moment)
    on = (
        turn * 2 * values["anisotropy"] / device.saturation_magnetization,
        turn * transfer * values["current"],
        turn * values["spin_orbit_field"],
        turn * values["spin_orbit_field"] * values["field_like_ratio"],
        turn * values["in_plane_field"],
    )
    off = (on[0], 0 * on[1], 0 * on[2], 0 * on[3], on[4])
    variance = (
        2 * device.damping * device.thermal_energy / (GYROMAGNETIC_RATIO * moment * plan.time_step)
    )
    with tf.device("CPU:0"):
        tensor = functools.partial(tf.constant, dtype=tf.float32)
        m = tuple(tensor(v) for v in _equilibrium(device, values, owner, rng))
        # The generator ignores the lowest bits; at least one bit above them must be set.
        words = rng.integers(0, 2**32, (3, BLOCK), "uint32") | np.uint32(16)
        generators = tuple(tf.constant(word) for word in words)
        on, off = (tuple(tensor(v) for v in rotations) for rotations in (on, off))
        kick, damping = tensor(turn * math.sqrt(variance)), tensor(device.damping)
        path = [np.stack(m, axis=-1)]
        for start, stop in zip(plan.marks[:-1], plan.marks[1:]):
            rotations = on if start < plan.pulse else off
            m, generators = _advance()(
                m, generators, rotations, kick, damping, tf.constant(int(stop - start))
            )
            if plan.record:
                path.append(np.stack(m, axis=-1))
            if bar is not None:
                bar.add(1)
    end = np.stack(m, axis=-1)
    if not np.all(np.isfinite(end)):
        raise FloatingPointError(
            f"A trajectory diverged with time_step = {plan.time_step:g} s; use a smaller one."
        )
    return end, np.stack(path, axis=1)


def _equilibrium(device, values, owner, rng):
    """Random unit vectors of the well at `m_z > 0`, one per lane, in thermal equilibrium.

    The density is `exp(Delta (z^2 + 2 h x))` with `h = B_x / mu0Hk`. At a given `z` the azimuth
    has a von Mises distribution with concentration `2 Delta h sqrt(1 - z^2)`. Averaged over the
    azimuth, `z` has the density `exp(Delta z^2) I0(concentration)`; `z` is drawn from its
    cumulative sum on a fine grid.
    """
    z = np.empty(owner.size)
    uniform = rng.uniform(size=owner.size)
    stability = values["initial_anisotropy"] * device.volume / device.thermal_energy
    moment = device.saturation_magnetization * device.volume
    pull = values["in_plane_field"] * moment / device.thermal_energy  # 2 Delta h
    angle = np.linspace(0, np.pi / 2, 20_001)
    for setting in np.unique(owner):
        lanes = np.flatnonzero(owner == setting)
        k = np.abs(pull[lanes[0]]) * np.sin(angle)
        log_density = -stability[lanes[0]] * np.sin(angle) ** 2 + k + np.log(special.i0e(k))
        density = np.sin(angle) * np.exp(log_density - log_density.max())
        weight = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        z[lanes] = np.cos(np.interp(uniform[lanes] * weight[-1], weight, angle))
    rho = np.sqrt(1 - z * z)
    azimuth = rng.vonmises(0.0, np.abs(pull) * rho) + np.where(pull < 0, np.pi, 0.0)
    return rho * np.cos(azimuth), rho * np.sin(azimuth), z


# --- checks --------------------------------------------------------------------------------------


def _check_settings(device: MTJDevice, **settings):
    """Checked settings as float64 arrays of the same shape, with defaults filled in."""
    if settings["anisotropy"] is None:
        settings["anisotropy"] = device.anisotropy
    if settings["initial_anisotropy"] is None:
        settings["initial_anisotropy"] = settings["anisotropy"]
    units = {
        "current": ("A", "10 uA is 10e-6"),
        "pulse_width": ("s", "5 ns is 5e-9"),
        "anisotropy": ("J/m^3", "110 kJ/m^3 is 110e3"),
        "initial_anisotropy": ("J/m^3", "110 kJ/m^3 is 110e3"),
        "spin_orbit_field": ("T", "20 mT is 0.02"),
        "field_like_ratio": ("(a ratio)", "80 % is 0.8"),
        "in_plane_field": ("T", "20 mT is 0.02"),
    }
    try:
        arrays = {name: checks.array(name, value) for name, value in settings.items()}
        arrays = dict(zip(arrays, np.broadcast_arrays(*arrays.values())))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The settings {sorted(units)} must be numbers or arrays in SI units that broadcast "
            f"against each other: {error}."
        ) from None
    for name, value in arrays.items():
        unit, hint = units[name]
        bad = ~np.isfinite(value)
        if name in ("pulse_width", "anisotropy", "initial_anisotropy"):
            bad |= ~(value > 0)
        if np.any(bad):
            rule = "finite and > 0" if np.all(np.isfinite(value)) else "finite"
            raise ValueError(f"{name} = {value[bad].flat[0]} {unit} must be {rule}; {hint}.")
    lowest = np.minimum(arrays["anisotropy"], arrays["initial_anisotropy"])
    field = 2 * lowest / device.saturation_magnetization
    bad = np.abs(arrays["in_plane_field"]) >= field
    if np.any(bad):
        raise ValueError(
            f"in_plane_field = {arrays['in_plane_field'][bad].flat[0]:g} T is not below mu0Hk = "
            f"{field[bad].flat[0]:.3g} T, so no stable state at m_z > 0 exists. Use a weaker field."
        )
    return arrays


def _choose_step(device, settings, time_step):
    """Time step in s; by default the largest field turns `m` by 0.04 rad. A coarse step warns."""
    moment = device.saturation_magnetization * device.volume
    transfer = constants.hbar * device.spin_torque_efficiency / (2 * constants.e * moment)
    field = (
        2 * settings["anisotropy"] / device.saturation_magnetization
        + np.abs(transfer * settings["current"])
        + np.abs(settings["spin_orbit_field"]) * (1 + np.abs(settings["field_like_ratio"]))
        + np.abs(settings["in_plane_field"])
    )
    rate = GYROMAGNETIC_RATIO * float(np.max(field, initial=1e-9))
    if time_step is None:
        return _ROTATION / rate
    time_step = checks.number("time_step", time_step, "s", hint="1 ps is 1e-12")
    if time_step <= 0:
        raise ValueError(f"time_step = {time_step} s must be finite and > 0; 1 ps is 1e-12.")
    if rate * time_step > COARSE_ROTATION:
        warn(
            f"time_step = {time_step:g} s turns the magnetisation by {rate * time_step:.3g} rad "
            f"per step, more than {COARSE_ROTATION}, which biases the probability. Use at most "
            f"{COARSE_ROTATION / rate:.2g} s."
        )
    return time_step


def _same_width(pulse_width):
    """Index arrays of the settings with the same pulse width."""
    _, inverse = np.unique(pulse_width, return_inverse=True)
    return [np.flatnonzero(inverse == k) for k in range(inverse.max(initial=-1) + 1)]
