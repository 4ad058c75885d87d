"""A callback's lease of a model's step: for its own fit, and for no step after it.

Keras tells a callback that a fit begins, but not that it was interrupted. So the callback renews
its lease before every step, when Keras says that one is about to run; a step that finds no renewed
lease ends it, whatever became of the fit, and runs as if the callback had never been there.
"""

import sys

from spinkeras import _keras

_DEEPEST = 32  # calls between a step's caller and the callback


class Lease:
    """A claim on the steps of a model in one phase.

    Args:
        model: compiled model.
        phase: `"train"` or `"test"`.
        around: function `(step, *args)` that runs in place of every step and calls `step(*args)`;
            `None` leaves the steps alone.
        key: tells two such functions apart: with the same key, a step is compiled once.
        forget: function without arguments that gives `(variable, value)` pairs; the variables get
            these values when the lease ends.
    """

    def __init__(self, model, phase, around=None, key=None, forget=None):
        self.around, self.key = around, key
        self.forget = forget or (lambda: ())
        self._model, self._name = model, f"{phase}_function"
        self._callers = None
        step = getattr(model, self._name, None)
        if step is None:  # a training loop without Keras' steps
            self.gate = None
            return
        self.gate = step if isinstance(step, _Gate) else _Gate(model, phase, step)
        self._place()

    def _place(self):
        if getattr(self._model, self._name) is not self.gate:
            setattr(self._model, self._name, self.gate)
        if self not in self.gate.leases:
            self.gate.leases.append(self)

    def renew(self):
        """The next step of the loop that calls this belongs to the lease."""
        if self.gate is None:
            return
        self._place()
        # Held until the step runs, so that no later call can be taken for one of these.
        self._callers, frame = [], sys._getframe(1)
        while frame is not None and len(self._callers) < _DEEPEST:
            self._callers.append(frame)
            frame = frame.f_back

    def takes(self, caller) -> bool:
        """Whether the step called from this frame belongs to the lease; asked once per step."""
        callers, self._callers = self._callers, None
        return callers is not None and any(frame is caller for frame in callers)

    def end(self):
        """Give the model its plain step back."""
        if self.gate is not None:
            self.gate.end(self)
        for variable, value in self.forget():
            variable.assign(value)


class _Gate:
    """Stands where Keras keeps the compiled step of a model."""

    def __init__(self, model, phase, plain):
        self.model, self.phase, self.plain = model, phase, plain
        self.leases = []

    def __call__(self, *args):
        caller = sys._getframe(1)
        renewed = [lease for lease in self.leases if lease.takes(caller)]
        for lease in list(self.leases):
            if lease not in renewed:
                self.end(lease)
                args = _keras.forgotten(self.model, args, lease.forget())
        try:
            return self._step(renewed, args)(*args)
        except BaseException:  # such as a layer whose energy cannot be counted
            _keras.put_back(self.model, args)
            raise

    def end(self, lease):
        if lease in self.leases:
            self.leases.remove(lease)
        name = f"{self.phase}_function"
        if not self.leases and getattr(self.model, name, None) is self:
            setattr(self.model, name, self.plain)

    def _step(self, leases, args):
        """The compiled step with the function of the leases around it; the last one is kept."""
        around = [lease for lease in leases if lease.around is not None]
        if not around:
            return self.plain
        lease = around[0]
        if any(other.key != lease.key for other in around):
            raise ValueError(
                "Two callbacks of this fit want to measure energy in different ways. Give one of "
                "them; an EnergyBudget is an EnergyTracker, too."
            )
        kept = vars(self.model).setdefault("_spinkeras_steps", {})
        plain, key, step = kept.get(self.phase, (None, None, None))
        if plain is not self.plain or key != lease.key:
            step = _keras.make_step(self.model, self.phase, lease.around, args)
            kept[self.phase] = self.plain, lease.key, step
        return step
