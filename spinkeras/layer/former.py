"""Arguments that `SpinNeuron` had in version 0.1.0, and the classes that have them now."""

from typing import Any

from spinkeras import checks
from spinkeras.layer.knobs import Driver
from spinkeras.physics.empirical import EmpiricalCurve
from spinkeras.physics.laws import NeelBrown

HOLDERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "driver": (Driver, ("pulse_step", "gate_levels")),
    "switching_model": (NeelBrown, ("barrier_exponent", "attempt_time")),
}
NAMES = tuple(name for _, names in HOLDERS.values() for name in names)


def refuse(arguments):
    """Refuse arguments of version 0.1.0 with a message that names their new place."""
    old = [name for name in NAMES if name in arguments]
    if not old:
        return
    written = []
    for argument, (kind, names) in HOLDERS.items():
        given = [f"{name}={checks.shown(arguments[name])}" for name in names if name in old]
        if given:
            written.append(f"{argument}=spinkeras.{kind.__name__}({', '.join(given)})")
    raise ValueError(
        f"SpinNeuron has no argument {' and no '.join(old)} of its own; write {', '.join(written)}."
    )


def today(config, old):
    """Translate a configuration with the arguments `old` of version 0.1.0 to the present form."""
    new = {name: value for name, value in config.items() if name not in old}
    held = {
        argument: {name: config[name] for name in names if name in old}
        for argument, (_, names) in HOLDERS.items()
    }
    if held["driver"]:
        if "driver" in config:
            raise _two_versions("a driver", held["driver"])
        new["driver"] = Driver(**held["driver"])
    if held["switching_model"]:
        law, model = NeelBrown(**held["switching_model"]), config.get("switching_model")
        if isinstance(model, dict):
            model = checks.from_keras("switching_model", model, NeelBrown, EmpiricalCurve)
        if isinstance(model, NeelBrown):
            raise _two_versions("a NeelBrown", held["switching_model"])
        if law != NeelBrown():
            if model != "neel_brown":
                raise ValueError(
                    f"{held['switching_model']} belong to switching_model='neel_brown', not to "
                    f"{checks.shown(model)}; the description of this SpinNeuron is damaged."
                )
            new["switching_model"] = law
    return new


def _two_versions(what, old):
    return ValueError(
        f"The description of a SpinNeuron holds {what} and also {old} of version 0.1.0; leave out "
        "one of the two."
    )
