"""What the arguments of `SpinNeuron` may be, also as a file describes them."""

from spinkeras import checks
from spinkeras.layer.knobs import KNOBS, check_knob
from spinkeras.physics import laws
from spinkeras.physics.empirical import EmpiricalCurve


def refuse_settings(arguments):
    """Refuse a setting as an argument: the device has its limits, the weights its value."""
    for name in ("pulse_width", "gate_voltage"):
        if name in arguments:
            raise ValueError(
                f"SpinNeuron has no argument {name}: its limits are the device's, "
                f"device.replace({name}_range=(lowest, highest)), and an untrained neuron has the "
                "shortest pulse and 0 V."
            )


def knob_names(train):
    """Knobs to train, each once, from the argument `train`."""
    if isinstance(train, bool):
        train = KNOBS if train else ()
    if isinstance(train, str):
        train = (train,)
    if not isinstance(train, (list, tuple)):
        raise ValueError(
            f"train = {checks.shown(train)} must be a list of knobs among {list(KNOBS)}, or ()."
        )
    return tuple(dict.fromkeys(check_knob(knob) for knob in train))  # each knob once


def knobs_running_freely(knobs, train):
    """Trained knobs of a free-running junction, without the pulse width.

    The pulse width is then the interval between reads, on which no probability depends.
    """
    if train is True:
        return ("anisotropy",)
    if "pulse_width" in knobs:
        raise ValueError(
            f"train = {checks.shown(train)}: for a free-running junction the pulse width is "
            "the interval between reads. It changes no probability, so it cannot be trained. Use "
            "train=('anisotropy',) or (), and more `pulses` for a less noisy output."
        )
    return knobs


def shared(shared_axes):
    """The argument `shared_axes` as a tuple, or `None`."""
    if shared_axes is None:
        return None
    axes = shared_axes if isinstance(shared_axes, (list, tuple)) else [shared_axes]
    try:
        return tuple(checks.whole("shared_axes", axis, -32, 32) for axis in axes)
    except ValueError:
        raise ValueError(
            f"shared_axes = {checks.shown(shared_axes)} must be a list of integers or None; the "
            "batch axis is 0 and not counted."
        ) from None


def model_of(switching_model, device):
    """Switching model of an argument or of a file, where a dictionary describes it; unchecked."""
    if switching_model is None:
        return laws.own_model(device)
    if isinstance(switching_model, dict):
        return checks.from_keras("switching_model", switching_model, laws.NeelBrown, EmpiricalCurve)
    return switching_model


def object_of(name, value, kind):
    """Object of a class, from an argument or from its description in a file."""
    if isinstance(value, dict):
        return checks.from_keras(name, value, kind)
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__} or None; got {checks.shown(value)}.")
    return value
