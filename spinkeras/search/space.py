"""spin_search_space: the choices of a spin neuron as hyperparameters of a search."""

from collections.abc import Sequence
from typing import Any

import keras_tuner as kt

from spinkeras import checks
from spinkeras.layer.neuron import STEEPEST, SpinNeuron
from spinkeras.physics.device import DeviceLike, get_device, presets

_TRAIN = {
    "none": (),
    "pulse_width": ("pulse_width",),
    "anisotropy": ("anisotropy",),
    "both": ("pulse_width", "anisotropy"),
}


_SHARING = ("channel", "layer")


def spin_search_space(
    hp: kt.HyperParameters,
    device: DeviceLike | Sequence[str] | None = None,
    shortest_pulse: float | tuple[float, float] = (2e-9, 10e-9),
    window: float | tuple[float, float] = (1.5, 10.0),
    train: str | Sequence[str] = ("none", "pulse_width", "both"),
    sharing: str | Sequence[str] = ("channel", "layer"),
    gain: float | tuple[float, float] = (0.3, 3.0),
    recenter: bool | Sequence[bool] = True,
    pulses: int | Sequence[int] | None = None,
    rank: int = 2,
    prefix: str = "spin",
) -> dict[str, Any]:
    """Declare the choices of a spin neuron to keras-tuner; returns arguments of `SpinNeuron`.

    The pulse widths of a neuron start at `t` and can change within `[t, min(t * window, longest)]`,
    where `longest` is the longest pulse of the device (s). The current scale is `gain` times the
    scale that gives the untrained neuron the slope 1/4, so `gain` means the same for every device
    and pulse:

        current_scale = gain / (4 dP/dI)                                        [A per unit input]

    An argument with several values becomes a hyperparameter, named `<prefix>_<argument>`; an
    argument with one value is fixed. If groups of layers should differ, call this once for every
    group, with different prefixes.

    Args:
        hp: `keras_tuner.HyperParameters`.
        device: preset name, `MTJDevice`, or a sequence of preset names to choose from. Default
            `None`: all presets.
        shortest_pulse: `t` in s, `(lowest, highest)` for a logarithmic range, or one value. It
            must lie inside the pulse range of every device. Default 2e-9 to 10e-9.
        window: ratio of the longest to the shortest pulse, > 1, `(lowest, highest)` for a
            logarithmic range, or one value. Default 1.5 to 10.
        train: which knobs to train, any of `"none"`, `"pulse_width"`, `"anisotropy"`, `"both"`.
            Default: `"none"`, `"pulse_width"` or `"both"`.
        sharing: `"channel"` (one knob per channel), `"layer"` (one knob for all neurons), or
            both to choose from. Default: both.
        gain: slope of the untrained neuron in units of 1/4, 1e-9 to 1e4, `(lowest, highest)` for a
            logarithmic range, or one value. Default 0.3 to 3. A signed neuron (`bipolar`) is twice
            as steep: it has slope 1 at gain 2.
        recenter: `True`, `False` or both to choose from. Default `True`.
        pulses: pulses per inference, an integer or several to choose from. The output of the
            neuron is then always drawn (`output="always_sampled"`), so that the number of pulses
            affects both accuracy and energy. Default `None`: expected values, with the energy of
            one pulse.
        rank: number of axes of the neuron's input, with the batch, for `sharing="layer"`: 2 after
            a dense layer, 4 after a two-dimensional convolution. Default 2. A network with neurons
            of several ranks needs one space (and prefix) for each, or `sharing="channel"`.
        prefix: start of the names. Default `"spin"`.

    Returns:
        Dictionary of arguments for `SpinNeuron` or `to_spin`.

    Raises:
        ValueError: for unknown choices, and for ranges outside the range of a device.

    Example:

    >>> import keras_tuner, spinkeras
    >>> from spinkeras.search import spin_search_space
    >>> hp = keras_tuner.HyperParameters()
    >>> neuron = spinkeras.SpinNeuron(**spin_search_space(hp, device="stt_reference"))
    >>> sorted(hp.values)
    ['spin_gain', 'spin_sharing', 'spin_shortest_pulse_ns', 'spin_train', 'spin_window']
    """
    if not isinstance(hp, kt.HyperParameters):
        raise ValueError(
            f"hp = {checks.shown(hp)} must be keras_tuner.HyperParameters, which a tuner gives to "
            "build(hp)."
        )
    checks.text("prefix", prefix, "a text, the start of the names")
    rank = checks.whole("rank", rank, 2, 32, "the axes of the neuron's input, the batch included")
    names = presets() if device is None else device
    device = get_device(_choice(hp, f"{prefix}_device", names, None))
    low, high = span("shortest_pulse", shortest_pulse, "s", 1e-12, 1.0)
    for candidate in (
        map(get_device, names) if isinstance(names, (list, tuple)) else (get_device(names),)
    ):
        shortest, longest = candidate.pulse_width_range
        if not (shortest * (1 - 1e-9) <= low and high < longest):
            raise ValueError(
                f"shortest_pulse = ({low:g}, {high:g}) s does not lie inside the pulse range of "
                f"{candidate.name or 'the device'}, [{shortest:g}, {longest:g}) s. Narrow it, or "
                "give the device another range: device.replace(pulse_width_range=...)."
            )
    ratios = span("window", window, "(a ratio)", 1e-3, 1e9)
    if ratios[0] <= 1:
        raise ValueError(f"window = {ratios} must be > 1: ratio of longest to shortest pulse.")
    pulse = 1e-9 * pick(hp, f"{prefix}_shortest_pulse_ns", (low * 1e9, high * 1e9))
    ratio = pick(hp, f"{prefix}_window", ratios)
    scale = pick(hp, f"{prefix}_gain", span("gain", gain, "(a ratio)", 1e-9, STEEPEST))
    knobs = _choice(hp, f"{prefix}_train", train, tuple(_TRAIN))
    shared = _choice(hp, f"{prefix}_sharing", sharing, _SHARING)
    recenter = _choice(hp, f"{prefix}_recenter", recenter, (True, False))

    longest = min(pulse * ratio, device.pulse_width_range[1])
    device = device.replace(pulse_width_range=(pulse, longest), nominal_pulse_width=pulse)
    settings = {
        "device": device,
        "train": _TRAIN[knobs],
        "shared_axes": None if shared == "channel" else tuple(range(1, rank)),
        "recenter": bool(recenter),
    }
    if pulses is not None:
        several = pulses if isinstance(pulses, (list, tuple)) else [pulses]
        several = [checks.whole("pulses", count, 1, 1_000_000) for count in several]
        settings["pulses"] = _choice(hp, f"{prefix}_pulses", several, several)
        settings["output"] = "always_sampled"
    settings["current_scale"] = scale * _untrained(device).current_scale
    return settings


def _untrained(device):
    try:
        return SpinNeuron(device=device, train=())
    except ValueError as error:
        reason = str(error).split(". ")[0]  # the advice after it is for a user of SpinNeuron
        name, (shortest, longest) = device.name or "unnamed", device.pulse_width_range
        raise ValueError(
            f"The device {name!r} gives no neuron with pulses of [{shortest:g}, {longest:g}] s: "
            f"{reason}. Choose another shortest_pulse, window or device. A free-running junction "
            "(one with a low barrier) needs a curve of its own in a search: "
            "device.replace(switching_curve=spinkeras.EquilibriumCurve(...))."
        ) from None


def _choice(hp, name, values, allowed):
    """One of several values as a hyperparameter, or the single value itself."""
    several = list(values) if isinstance(values, (list, tuple)) else [values]
    kinds = {type(value) for value in allowed or ()}
    unknown = [
        value for value in several if kinds and not (type(value) in kinds and value in allowed)
    ]
    if unknown or not several:
        found = checks.shown(unknown) if unknown else "nothing"
        raise ValueError(f"{name}: cannot choose from {found}; use any of {allowed or presets()}.")
    if allowed is None and len(several) > 1 and not all(isinstance(v, str) for v in several):
        raise ValueError(
            f"{name}: give the names of presets to choose from, because keras-tuner stores text."
        )
    return several[0] if len(several) == 1 else hp.Choice(name, several)


def span(name, value, unit, low, high, whole=False):
    """Two ends of a range of positive numbers, checked; a single number is both ends."""
    ends = value if isinstance(value, (list, tuple)) else (value, value)
    if len(ends) == 2:
        if whole:
            lower, upper = (checks.whole(name, end, low, high) for end in ends)
        else:
            lower, upper = (checks.number(name, end, unit, low, high) for end in ends)
        if lower <= upper:
            return lower, upper
    raise ValueError(
        f"{name} = {checks.shown(value)} {unit} must be one number > 0 or a pair (lowest, highest)."
    )


def pick(hp, name, ends):
    low, high = ends
    if low == high:
        return low
    return hp.Float(name, min_value=low, max_value=high, sampling="log")
