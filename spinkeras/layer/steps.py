"""A lease lets a callback change the steps of a model during its own fit, and no later step.

Keras tells a callback that a fit begins, but not that it was interrupted. So the callback renews
its lease before every step, when Keras announces the step. A step that finds a lease not renewed
ends that lease and runs without the callback.
"""

import sys

from spinkeras import _keras

_DEEPEST = 32  # greatest number of calls between the loop that runs the step and the callback


class Lease:
    """A callback's lease of the steps of a model in one phase.

    Args:
        model: compiled model.
        phase: `"train"` or `"test"`.
        around: function `(step, *args)` that runs in place of every step and calls `step(*args)`;
            `None` leaves the steps unchanged.
        key: identifies `around`; leases with the same key share one compiled step.
        forget: function without arguments that returns `(variable, value)` pairs; the variables
            get these values when the lease ends.
    """

    def __init__(self, model, phase, around=None, key=None, forget=None):
        self.around, self.key = around, key
        self.forget = forget or (lambda: ())
        self._model, self._name = model, f"{phase}_function"
        self._callers = None
        step = getattr(model, self._name, None)
        if step is None:  # a training loop that does not use Keras's steps
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
        """Claim the next step of the loop from which this is called."""
        if self.gate is None:
            return
        self._place()
        # Keep the frames until the step runs: Python could reuse a freed frame for a later call.
        self._callers, frame = [], sys._getframe(1)
        while frame is not None and len(self._callers) < _DEEPEST:
            self._callers.append(frame)
            frame = frame.f_back

    def takes(self, caller) -> bool:
        """Whether the step that this frame calls belongs to the lease; call it once per step."""
        callers, self._callers = self._callers, None
        return callers is not None and any(frame is caller for frame in callers)

    def end(self):
        """End the lease; after the last one the model has its plain step again."""
        if self.gate is not None:
            self.gate.end(self)
        for variable, value in self.forget():
            variable.assign(value)


class _Gate:
    """Takes the place in which Keras keeps the compiled step of a model."""

    def __init__(self, model, phase, plain):
        self.model, self.phase, self.plain = model, phase, plain
        self.leases = []

    def __call__(self, *args):
        caller = sys._getframe(1)
        renewed = [lease for lease in self.leases if lease.takes(caller)]
        for lease in list(self.leases):
            if lease not in renewed:
                self.end(lease)
                args = _keras.arguments_with(self.model, args, lease.forget())
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
        """The compiled step with the leases' function around it; the last such step is kept."""
        around = [lease for lease in leases if lease.around is not None]
        if not around:
            return self.plain
        lease = around[0]
        if any(other.key != lease.key for other in around):
            raise ValueError(
                "Two callbacks of this fit measure energy in different ways. Use only one of them; "
                "an EnergyBudget does all that an EnergyTracker does."
            )
        kept = vars(self.model).setdefault("_spinkeras_steps", {})
        plain, key, step = kept.get(self.phase, (None, None, None))
        if plain is not self.plain or key != lease.key:
            step = _keras.make_step(self.model, self.phase, lease.around, args)
            kept[self.phase] = self.plain, lease.key, step
        return step
