"""SpinNeuron: the switching probability of a magnetic tunnel junction as a Keras activation."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, checks
from spinkeras._typing import Array
from spinkeras.layer import arguments, core, draws, former, observation, stored
from spinkeras.layer.knobs import (
    KNOBS,
    SCALES,
    DeviceRange,
    Driver,
    knob_nominal,
    knob_range,
)
from spinkeras.notices import warn
from spinkeras.physics import laws, switching
from spinkeras.physics.chip_curve import chip_curve
from spinkeras.physics.curve import RationalLogit
from spinkeras.physics.device import MOST_CURRENT, DeviceLike, get_device
from spinkeras.physics.spread import ChipSpread

STEEPEST = 1e4
"""Greatest current scale in units of the default one, for devices of which it is more."""

OUTPUTS = ("probability", "sampled", "always_sampled")
_IN_EVERY_FILE = (
    "device",
    "train",
    "output",
    "pulses",
    "switching_model",
    "current_scale",
    "recenter",
    "shared_axes",
    "spread",
    "knob_scale",
)


@keras.saving.register_keras_serializable(package="spinkeras")
class SpinNeuron(keras.layers.Layer):
    """Activation with the switching curve of a magnetic tunnel junction (MTJ).

    An input `x` drives the current `I = I_bias + current_scale * x` (A) through the junction. The
    output is the probability `P(I; t_p, K_eff)` in (0, 1) that one pulse of width `t_p` (s) at
    anisotropy `K_eff` (J/m^3) reverses the junction. Pulse width and anisotropy are two knobs of
    the real device: settings that electronics can change. The layer trains both inside the
    device's range; by default every channel has one of each.

    A weight holds a knob as a dimensionless logarithm, `w = ln(value / nominal) / knob_scale`. The
    two weights are `log_pulse_width` and `log_anisotropy`; the nominal values are
    `device.nominal_pulse_width` and `device.anisotropy`. The constraint `DeviceRange` keeps every
    weight inside the device's range. `get_weights` returns these two weights first, whether they
    are trained or not, so layers with the same device and `knob_scale` can exchange them.

    Files (`.keras`, `.weights.h5`) hold the knobs by name and in SI units, so a layer can load
    them with another `train` or `knob_scale`. Legacy `.h5` files cannot hold them like this and
    raise an error.

    Keras's own numbers of weights (`count_params`, `summary`) include seven numbers per layer in
    which the library measures energy: `meter_sums`, `energy_weight` and `energy_seen`. They are no
    part of the network, and `model_card` does not count them.

    Args:
        device: `MTJDevice` or preset name. Default `"stt_reference"`.
        train: knobs to train, any of `"pulse_width"` and `"anisotropy"`; `()` or `False` gives a
            fixed activation. Default `True`: both knobs. A free-running junction (see
            `switching_model`) trains only its anisotropy, because its curve does not depend on the
            pulse width. For pulses of nanoseconds the pulse width sets the slope and the
            anisotropy hardly changes it; see docs/physics.md.
        output: what the layer returns. `"probability"` (default): the expected value.
            `"sampled"`: in training the fraction of `pulses` that switched, drawn from the exact
            binomial distribution; in inference the probability. `"always_sampled"`: a drawn
            fraction in both. The gradient of a draw is the gradient of the probability
            (straight-through). Do not draw in a layer whose output goes into a cross-entropy
            loss in training: the loss of a wrong bit is clipped and has no gradient.
        pulses: number of pulses per inference, 1 to 1e6, over which the output is averaged.
            Default 1. Energy and latency grow with it; above 16 the computing time of a draw does
            not. For a free-running junction: number of reads. If successive reads are correlated
            by 1 % or more, up to 64 of them are drawn as a Markov chain with two states, whose
            first read is in equilibrium.
        bipolar: `True`: the output is `2 P - 1` in (-1, 1) and its bits are -1 and +1, as if the
            read current were compared with a reference between the two states. Deep networks
            train with it as well as with tanh, and more slowly with the unsigned output. Default
            `False`.

    All further arguments are given by name.

    Args of the device physics:
        switching_model: law of the switching probability: `"macrospin"`, `"neel_brown"`,
            `"ballistic"` or `"equilibrium"` (see `spinkeras.switching_probability`), a `NeelBrown`
            with options, or a measured curve: an `EmpiricalCurve` or an `EquilibriumCurve`. With a
            measured curve the device still gives the ranges of the knobs, the resistances and the
            energies. `"equilibrium"` and an `EquilibriumCurve` are for a free-running junction: its
            barrier is so low that it switches without a pulse. Its current is held and it is read
            `pulses` times, but never written or reset. `pulse_width` is then the interval from one
            read to the next, on which no probability depends. Default `None`: the device's
            `switching_curve`, or `"macrospin"` if it has none.
        current_scale: A per unit of input, 1e-18 to 0.2, or to 1e4 times the default value if that
            is more; 10 uA is 10e-6. Default `None`: the value with which the untrained neuron has
            slope 1/4 at its midpoint, like the logistic sigmoid, or, with `bipolar`, slope 1, like
            tanh.
        recenter: `True` (default): the bias current follows the midpoint of every neuron, so a
            knob changes only the slope and `P(x=0) = 1/2` (or half the ceiling of a curve that
            ends below 1). `False`: the bias current stays at the midpoint of the untrained
            neuron, so a knob also moves the threshold.

    Args of sharing:
        shared_axes: axes that share one knob, as in `keras.layers.PReLU`; the first axis after
            the batch is 1. Default `None`: all axes but the last, so one knob per channel. With a
            tuple, all other axes must keep their size.

    Args of the hardware:
        driver: `Driver`, the pulse widths and gate voltages that the circuits around the neurons
            can make. Default `None`: any, like `Driver()`.
        spread: `ChipSpread`, how the devices of real chips differ. Default `None`: they do not.
            With a spread, every training step draws a new simulated chip, so the network learns to
            tolerate the differences; the callback `NewChipEachEpoch` draws one per epoch instead.
            Inference uses nominal devices (`evaluate_chips` evaluates chips).
        seed: integer, 0 to 2^31 - 1, that makes the draws of bits and chips reproducible. Default
            `None`: a random seed.

    Args of training:
        knob_scale: how far a knob moves per unit of its weight, 1e-3 to 1e3. Default 3: a step of
            0.01 in the weight changes the knob by 3 %. A larger value trains the knobs faster.
        pulse_width_initializer, anisotropy_initializer: Keras initializers of the weights.
            Default `"zeros"`, the nominal setting. The result is clipped to the device's range.
        pulse_width_regularizer, anisotropy_regularizer: Keras regularizers of the weights.
        pulse_width_constraint, anisotropy_constraint: further Keras constraints, applied before
            the clipping to the device's range.
        **kwargs: `name`, `dtype` and so on, as in `keras.layers.Layer`.

    Input shape: any, at least `(batch, channels)`; the channel axis must be known.

    Output shape: that of the input. The layer computes at least in float32 and casts the result to
    its compute dtype. Inputs far outside the transition saturate with a zero gradient, also at
    +-infinity; NaN stays NaN. Masks pass through.

    The output is the same deterministic probability in training and in inference, unless `output`
    asks for draws. Draws have limits. With `tf.distribute.MirroredStrategy` every replica draws
    the same numbers, and a reloaded layer starts again at its seed, as with
    `keras.layers.Dropout`. On TensorFlow XLA cannot compile `pulses > 16`, so `jit_compile=True`
    fails and `"auto"` leaves the model uncompiled.

    Raises:
        ValueError: for an unknown knob, model or preset, for a device whose range exceeds the
            range of the switching model, and for an unknown size of the channel axis.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), spinkeras.SpinNeuron()])
    >>> model(np.zeros((2, 4), "float32")).shape[-1]
    3
    >>> model.layers[-1].pulse_width * 1e9  # ns
    array([2., 2., 2.])

    References: S. Xin et al., arXiv 2211.13391 (2022) for the trained spintronic activation;
    A. D. Jagtap, K. Kawaguchi, G. E. Karniadakis, J. Comput. Phys. 404, 109136 (2020) for the
    scale factor on a trained slope.
    """

    def __init__(
        self,
        device: DeviceLike = "stt_reference",
        train: bool | str | Sequence[str] = True,
        output: str = "probability",
        pulses: int = 1,
        bipolar: bool = False,
        *,
        switching_model: laws.SwitchingModel | None = None,
        current_scale: float | None = None,
        recenter: bool = True,
        shared_axes: int | Sequence[int] | None = None,
        driver: Driver | None = None,
        spread: ChipSpread | None = None,
        seed: int | None = None,
        knob_scale: float = 3.0,
        pulse_width_initializer: Any = "zeros",
        anisotropy_initializer: Any = "zeros",
        pulse_width_regularizer: Any = None,
        anisotropy_regularizer: Any = None,
        pulse_width_constraint: Any = None,
        anisotropy_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        former.refuse(kwargs)
        arguments.refuse_settings(kwargs)
        super().__init__(**kwargs)
        self.supports_masking = True
        # Values are checked first: Keras wraps lists that become attributes in its own classes.
        self.device = get_device(device)
        # Not `train` and `output`: PyTorch modules have a method `train`, Keras layers an `output`.
        self.trained_knobs = arguments.knob_names(train)
        self.output_mode = checks.choice("output", output, OUTPUTS)
        self.pulses = checks.whole("pulses", pulses, 1, 1_000_000)
        self.bipolar = checks.flag("bipolar", bipolar)
        self.switching_model = laws.check_model(arguments.model_of(switching_model, self.device))
        self._curve = laws.get_curve(self.switching_model, self.device)
        self.telegraph: Any = getattr(self._curve, "telegraph", None)
        self.free_running = self.telegraph is not None
        if self.free_running:
            self.trained_knobs = arguments.knobs_running_freely(self.trained_knobs, train)
        elif self.device.has_free_running_curve:
            raise ValueError(
                f"switching_model = {checks.shown(switching_model)} is a law of pulses, and the "
                f"device {self.device.name or 'unnamed'!r} runs freely (its switching_curve is an "
                "EquilibriumCurve); leave switching_model out, or give "
                "device.replace(switching_curve=None)."
            )
        self.recenter = checks.flag("recenter", recenter)
        self.shared_axes = arguments.shared(shared_axes)
        self.driver = Driver() if driver is None else arguments.object_of("driver", driver, Driver)
        self.spread = None if spread is None else arguments.object_of("spread", spread, ChipSpread)
        self.seed = None if seed is None else checks.whole("seed", seed, 0, 2**31 - 1)
        self.knob_scale = checks.number("knob_scale", knob_scale, "(dimensionless)", *SCALES)
        self.pulse_width_initializer = keras.initializers.get(pulse_width_initializer)
        self.anisotropy_initializer = keras.initializers.get(anisotropy_initializer)
        self.pulse_width_regularizer = keras.regularizers.get(pulse_width_regularizer)
        self.anisotropy_regularizer = keras.regularizers.get(anisotropy_regularizer)
        self.pulse_width_constraint = keras.constraints.get(pulse_width_constraint)
        self.anisotropy_constraint = keras.constraints.get(anisotropy_constraint)
        self.log_pulse_width: Any = None
        self.log_anisotropy: Any = None
        self.meter_sums: Any = None
        self.energy_weight: Any = None
        self.energy_seen: Any = None
        self.loaded_energy_weight: float | None = None  # from a file, until a fit continues with it
        self._ranges = {
            knob: DeviceRange(
                self.device, knob, self.knob_scale, first=getattr(self, f"{knob}_constraint")
            )
            for knob in KNOBS
        }
        self._prepare_draws()
        self._grids = self.driver.grids(self.device)
        self._check_box()
        if self.output_mode != "probability" and self.spread is not None:
            self.refuse_chain(self.pulses, "with a spread")
        if self.output_mode != "probability" and self.pulses > draws.MOST_CORRELATED:
            self.refuse_chain(self.pulses, f"one by one beyond {draws.MOST_CORRELATED}")
        usual = (0.5 if self.bipolar else 0.25) / float(self._slope(*self.nominal_knobs()))
        self.current_scale = checks.number(
            "current_scale",
            usual if current_scale is None else current_scale,
            "A per unit input",
            1e-18,
            max(MOST_CURRENT, STEEPEST * usual),
            "10 uA is 10e-6",
        )

    def build(self, input_shape: Any) -> None:
        shape = self._knob_shape(input_shape)
        for knob in KNOBS:
            weight = self.add_weight(
                name=f"log_{knob}",
                shape=shape,
                initializer=self._start(knob),
                regularizer=getattr(self, f"{knob}_regularizer"),
                constraint=self._ranges[knob],
                trainable=knob in self.trained_knobs,
                dtype=keras.backend.result_type(self.variable_dtype, "float32"),
                autocast=False,
            )
            setattr(self, f"log_{knob}", weight)
        # Sums that spinkeras.energy.meter keeps over calls; nothing else uses them.
        self.meter_sums = self.add_weight(
            name="meter_sums",
            shape=(5,),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",
        )
        # For spinkeras.energy.budget: the weight of energy in the loss, and the energy at which
        # this weight was set.
        self.energy_weight, self.energy_seen = (
            self.add_weight(
                name=name,
                shape=(),
                initializer="zeros",
                trainable=False,
                dtype="float32",
                autocast=False,
                aggregation="mean",
            )
            for name in ("energy_weight", "energy_seen")
        )
        self.built = True

    def call(self, inputs: Array, training: bool | None = None, mask: Array = None) -> Array:
        if not hasattr(inputs, "dtype"):
            raise _not_one_tensor(self.name, f"a {type(inputs).__name__}")
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        if dtype.startswith("complex"):
            raise _not_one_tensor(self.name, f"a {dtype}; take keras.ops.real or keras.ops.abs")
        inputs = ops.cast(inputs, dtype)
        observed = observation.of(self)
        answer = observed.answer(self, inputs, mask)
        if answer is not None:
            return ops.cast(answer, self.compute_dtype)
        factors = self._draw_chip(dtype) if training and self.spread is not None else None
        setting = self.setting(core.precise(dtype))
        probability = self.response(inputs, factors, setting=setting, training=training)
        observed.see(self, inputs, setting, probability, training, mask)
        correlation = self.correlation(inputs)
        fraction = observed.fraction(self, probability, training, correlation)
        return ops.cast(self.to_output(fraction), self.compute_dtype)

    def response(
        self,
        inputs: Array,
        factors: Any = None,
        spread: ChipSpread | None = None,
        cause: str = "all",
        setting: Any = None,
        training: bool | None = False,
    ) -> Array:
        """Switching probability of every element.

        Args:
            inputs: tensor, float32 or float64.
            factors: `DeviceFactors`, how each device differs, or `None` for nominal devices.
            spread, cause: as in `physics.chip_curve`; by default the layer's own spread.
            setting: result of the method `setting` in the precision `core.precise`, if the caller
                has it already.
            training: whether a gradient will be needed.
        """
        gain = self.current_scale / self.device.critical_current_per_stability
        if factors is None and hasattr(self._curve, "tangents"):
            if setting is None:
                setting = self.setting(core.precise(inputs.dtype))
            return self._rational_response(inputs, gain, setting, training)
        log_duration, stability = self.setting(inputs.dtype)
        midpoint = self._curve(ops, log_duration, stability).midpoint
        bias = midpoint if self.recenter else self._nominal_midpoint()
        if factors is not None:
            drive, spread = bias + inputs * gain, spread or self.spread
            return chip_curve(
                ops,
                self._curve,
                log_duration,
                stability,
                drive,
                factors,
                spread,
                cause,
                self.device,
            )
        drive = inputs * gain + (0.0 if self.recenter else bias - midpoint)
        return self._curve(ops, log_duration, stability).probability(drive)

    def _rational_response(self, inputs, gain, setting, training):
        """The response of a law whose curve is a `RationalLogit`, which `core` computes."""
        if self._has_constant_knobs():  # during an export
            curve = self._curve(np, *setting)
            shift = 0.0 if self.recenter else self._nominal_midpoint() - curve.midpoint
            numbers = core.rows(curve, gain, shift)
            numbers = [ops.convert_to_tensor(n, inputs.dtype) for n in numbers]
            return core.response(inputs, numbers, observation.of(self).logistic)
        trained = self.trained_knobs if self.trainable else ()
        knobs = [
            ops.convert_to_tensor(w)
            for knob, w in zip(KNOBS, self.knob_weights())
            if knob in trained
        ]
        kernels = training and self.in_kernels(inputs)
        constants = gain, float(not self.recenter), self._nominal_midpoint(), self.knob_scale
        numbers, slope, *by_knobs = core.neuron_numbers(
            self._curve, setting, constants, bool(trained), inputs.dtype, kernels
        )
        by_knobs = [by for knob, by in zip(KNOBS, by_knobs) if knob in trained]
        return core.linked(inputs, [numbers, slope, *by_knobs], knobs, training, kernels)

    def in_kernels(self, inputs: Array) -> bool:
        """Whether training on this input may run in compiled kernels."""
        return core.kernels_serve(inputs, _keras.outermost(self))

    def to_output(self, probability: Array) -> Array:
        """Output of the layer for a probability or for a fraction of bits."""
        return 2 * probability - 1 if self.bipolar else probability

    def current(self, inputs: Array) -> Array:
        """Current in A through every element, as a tensor: the bias plus `current_scale` inputs.

        Args:
            inputs: tensor of the layer's input.

        Example:

        >>> import keras, spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> neuron.build((None, 2))
        >>> current = neuron.current(keras.ops.convert_to_tensor([[0.0, 4.0]]))
        >>> (keras.ops.convert_to_numpy(current) * 1e6).round(1)  # uA
        array([[ 73.5, 111. ]], dtype=float32)
        """
        bias = self.bias(self.setting(core.precise(inputs.dtype)))
        return ops.cast(bias, inputs.dtype) + inputs * self.current_scale

    def bias(self, setting: Any, kernels: bool = False) -> Array:
        """Current in A at zero input, for every knob, as a tensor.

        Args:
            setting: result of the method `setting`.
            kernels: whether the compiled kernels of TensorFlow may be used here.
        """
        midpoint = self._nominal_midpoint()
        if self.recenter:
            midpoint = core.midpoint(self._curve, setting, kernels)
        return midpoint * self.device.critical_current_per_stability

    def pulse_widths(self, setting: Any) -> Array:
        """Pulse width in s of every knob, as a tensor; `setting` as in `bias`."""
        return ops.exp(setting[0]) * self.device.diffusion_time

    def anisotropies(self, setting: Any) -> Array:
        """Anisotropy `K_eff` in J/m^3 of every knob, as a tensor; `setting` as in `bias`."""
        return setting[1] * (self.device.thermal_energy / self.device.volume)

    def remembers(self, pulses: int) -> bool:
        """Whether successive reads of a free-running junction are correlated by 1 % or more.

        This is asked for the worst case of the device: its shortest interval between reads and its
        highest barrier, with both states equally probable.
        """
        return self.free_running and draws.remembers(self._curve, self.device, pulses)

    def refuse_chain(self, pulses: int, where: str) -> None:
        """Refuse to draw reads that are correlated, where they cannot be drawn as a chain."""
        if self.free_running:
            draws.refuse_chain(self.name, self._curve, self.device, pulses, where)

    def correlation(self, inputs: Array) -> Array:
        """Correlation of successive reads for every element, or `None` if it can be ignored."""
        if self.output_mode == "probability" or not self.remembers(self.pulses):
            return None
        setting = self.setting(inputs.dtype)
        curve = self._curve(ops, *setting)
        drive = inputs * (self.current_scale / self.device.critical_current_per_stability)
        if not self.recenter:
            drive = drive + (self._nominal_midpoint() - curve.midpoint)
        stability = ops.broadcast_to(setting[1], ops.shape(drive))
        memory = self.telegraph.correlation_time(ops, curve, drive, stability)
        return ops.stop_gradient(ops.exp(-self.pulse_widths(setting) / memory))

    draw = staticmethod(draws.draw)

    def hold_chip(self, number: int | None) -> None:
        """Train on one fixed chip from now on, or on a new chip every step (`None`).

        The chip depends only on the layer's seed and this number. The call also takes effect in a
        training step that is already compiled.

        Args:
            number: integer, 0 to 2^26, or `None`.

        Raises:
            ValueError: for a layer without `spread`, or a number out of range.

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron(spread=spinkeras.ChipSpread(stability=0.05))
        >>> neuron.build((None, 3))
        >>> neuron.hold_chip(7)
        """
        if self.spread is None:
            raise ValueError(
                f"Layer {self.name!r} has no chip to hold; give it a spread=ChipSpread(...)."
            )
        position = 0
        if number is not None:
            number = checks.whole("number", number, 0, 2**26, "None draws a new chip every step")
            position = 2**30 + 8 * number  # far from the positions that the steps draw from
        seed = ops.convert_to_numpy(self.seed_generator.state)[0]
        self.held_chip.state.assign(np.array([seed, position]))

    def _draw_chip(self, dtype):
        """Device factors for this step, of a new chip or of the held one."""
        held, seeds = self.held_chip.state.value, self.seed_generator.state
        is_held, before = held[1] > 0, seeds.value * 1
        seeds.assign(ops.where(is_held, held, before))
        factors = self.spread.draw_tensors(
            self.log_pulse_width.shape, self.device.temperature, self.seed_generator, dtype
        )
        seeds.assign(ops.where(is_held, before, seeds.value))
        return factors

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return input_shape

    def __repr__(self):
        """Text like that of other Keras layers, with the device, trained knobs and output."""
        facts = {"name": self.name, "built": self.built}
        if hasattr(self, "output_mode"):  # an error in the constructor may print the layer earlier
            facts["device"] = self.device.name or "unnamed"
            facts["train"] = list(self.trained_knobs)
            facts["output"] = self.output_mode
        return f"<{type(self).__name__} {', '.join(f'{k}={v}' for k, v in facts.items())}>"

    def _repr_html_(self):
        import spinkeras

        return spinkeras.cards.neuron(self)

    # --- read-outs in SI units --------------------------------------------------------------

    @property
    def pulse_width(self) -> np.ndarray:
        """Pulse width of every knob in s (NumPy). Assigning checks the device's range.

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> neuron.build((None, 3))
        >>> neuron.pulse_width = 5e-9
        >>> (neuron.pulse_width * 1e9).round(3)  # ns
        array([5., 5., 5.])
        """
        return self._on_grid("pulse_width", self._value("pulse_width"))

    @pulse_width.setter
    def pulse_width(self, value: Array) -> None:
        value = self._given("pulse_width", value, "s")
        self._assign("pulse_width", value, "pulse_width", value, "s")

    @property
    def anisotropy(self) -> np.ndarray:
        """Anisotropy `K_eff` of every knob in J/m^3 (NumPy). Assigning checks the range.

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> neuron.build((None, 3))
        >>> (neuron.anisotropy / 1e3).round(1)  # kJ/m^3
        array([109.9, 109.9, 109.9])
        """
        return self._on_grid("anisotropy", self._value("anisotropy"))

    @anisotropy.setter
    def anisotropy(self, value: Array) -> None:
        value = self._given("anisotropy", value, "J/m^3")
        self._assign("anisotropy", value, "anisotropy", value, "J/m^3")

    @property
    def gate_voltage(self) -> np.ndarray:
        """Gate voltage in V that sets every anisotropy (NumPy). Assigning checks the range.

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> neuron.build((None, 3))
        >>> neuron.gate_voltage = [-0.5, 0.0, 0.5]
        >>> (neuron.anisotropy / 1e3).round(1)  # kJ/m^3
        array([124.8, 109.9,  95. ])
        """
        return self.device.gate_voltage_for(self.anisotropy)

    @gate_voltage.setter
    def gate_voltage(self, value: Array) -> None:
        value = self._given("gate_voltage", value, "V")
        if self.device.vcma_coefficient == 0 and np.any(value != 0):
            raise ValueError(
                f"gate_voltage = {value.flat[np.argmax(value != 0)]:g} V: this device has no gate "
                "(its vcma_coefficient is 0). Leave it at 0 V, or give the device one."
            )
        self._assign("anisotropy", self.device.anisotropy_at(value), "gate_voltage", value, "V")

    @property
    def bias_current(self) -> np.ndarray:
        """Current in A at zero input, for every knob (NumPy).

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> neuron.build((None, 3))
        >>> neuron.pulse_width = [2e-9, 5e-9, 20e-9]  # longer pulses need less current
        >>> (neuron.bias_current * 1e6).round(1)  # uA
        array([73.5, 38.8, 22.4])
        """
        unit = self.device.critical_current_per_stability
        if not self.recenter:
            return np.full(self.pulse_width.shape, self._nominal_midpoint() * unit)
        return self.curve_at(self.pulse_width, self.anisotropy).midpoint * unit

    @property
    def slope(self) -> np.ndarray:
        """Slope of the output at the midpoint per unit of input, for every knob (NumPy).

        With the default `current_scale` it is 1/4 before training, or 1 for a `bipolar` output.

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> neuron.build((None, 3))
        >>> neuron.pulse_width = [2e-9, 5e-9, 20e-9]  # longer pulses are steeper
        >>> neuron.slope.round(2)
        array([0.25, 0.51, 1.19])
        """
        slope = self._slope(self.pulse_width, self.anisotropy) * self.current_scale
        return 2 * slope if self.bipolar else slope

    def nominal_knobs(self) -> tuple[np.ndarray, np.ndarray]:
        """Pulse width in s and anisotropy in J/m^3 of an untrained neuron on this driver.

        Example:

        >>> import spinkeras
        >>> pulse_width, anisotropy = spinkeras.SpinNeuron().nominal_knobs()
        >>> print(f"{pulse_width * 1e9:.1f} ns, {anisotropy / 1e3:.1f} kJ/m^3")
        2.0 ns, 109.9 kJ/m^3
        """
        nominal = ((knob, knob_nominal(self.device, knob)) for knob in KNOBS)
        pulse_width, anisotropy = (np.array(self._on_grid(*pair)) for pair in nominal)
        return pulse_width, anisotropy

    def curve_at(self, pulse_width: Array, anisotropy: Array) -> RationalLogit | laws.Curve:
        """Switching curve of pulse widths and anisotropies (NumPy).

        Its currents are in units of `device.critical_current_per_stability`.

        Args:
            pulse_width: s, > 0, number or array.
            anisotropy: `K_eff` in J/m^3, > 0, broadcast against `pulse_width`.

        Raises:
            ValueError: for a value that is not a number or is not above 0.

        Example:

        >>> import spinkeras
        >>> neuron = spinkeras.SpinNeuron()
        >>> curve = neuron.curve_at(5e-9, neuron.device.anisotropy)
        >>> unit = neuron.device.critical_current_per_stability
        >>> round(float(curve.midpoint) * unit * 1e6, 1)  # uA
        38.8
        """
        pulse_width = checks.values(
            "pulse_width", pulse_width, "s", 0, hint="2 ns is 2e-9", above=True
        )
        log_duration = np.log(pulse_width / self.device.diffusion_time)
        return self._curve(np, log_duration, self.device.stability_at(anisotropy))

    # --- files ------------------------------------------------------------------------------

    @property
    def weights(self) -> list[Any]:
        """The weights, both knobs first; Keras by itself would list trained weights first."""
        stored.refuse_legacy_file(self.name)
        first = [f"log_{knob}" for knob in KNOBS]
        return sorted(
            super().weights, key=lambda w: first.index(w.name) if w.name in first else len(first)
        )

    def save_own_variables(self, store: Any) -> None:
        if not self.built:  # Keras's own layers store nothing then, either
            return
        for knob in KNOBS:  # in float64, which restores the logarithm without loss
            store[knob] = self._value(knob)
        weight = ops.convert_to_numpy(self.energy_weight)
        # A backup during a fit needs this weight to resume; a file saved later must not have it.
        store["energy_weight"] = weight if _keras.is_fitting() else 0 * weight

    def load_own_variables(self, store: Any) -> None:
        if not self.built:
            stored.refuse_any(store, self.name)
            return
        # Check everything before any change: Keras may continue after an error (skip_mismatch).
        shape = tuple(self.log_pulse_width.shape)  # of both knobs
        values = {knob: stored.knob(store, knob, shape, self.name) for knob in KNOBS}
        weight = stored.energy_weight(store, self.name)
        if weight is not None:
            self.energy_weight.assign(weight)
            self.loaded_energy_weight = float(weight)
        for knob, value in values.items():
            low, high = knob_range(self.device, knob)
            outside = (value < low * (1 - 1e-6)) | (value > high * (1 + 1e-6))
            if np.any(outside):
                warn(
                    f"{np.sum(outside)} of {value.size} loaded values of {knob} are outside this "
                    f"device's range [{low:g}, {high:g}] and were moved to its limit."
                )
            self._set(knob, value)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            device=keras.saving.serialize_keras_object(self.device),
            train=list(self.trained_knobs),
            output=self.output_mode,
            pulses=self.pulses,
            bipolar=self.bipolar,
            switching_model=keras.saving.serialize_keras_object(self.switching_model),
            current_scale=self.current_scale,
            recenter=self.recenter,
            shared_axes=None if self.shared_axes is None else list(self.shared_axes),
            driver=keras.saving.serialize_keras_object(self.driver),
            spread=None
            if self.spread is None
            else keras.saving.serialize_keras_object(self.spread),
            seed=self.seed,
            knob_scale=self.knob_scale,
        )
        for knob in KNOBS:
            for kind in ("initializer", "regularizer", "constraint"):
                name = f"{knob}_{kind}"
                config[name] = getattr(keras, f"{kind}s").serialize(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Inverse of `get_config`; also reads the configurations of earlier versions."""
        whole = cls.get_config is SpinNeuron.get_config  # a subclass may write fewer entries
        checks.require_entries("SpinNeuron", config, _IN_EVERY_FILE if whole else ())
        own = inspect.signature(cls.__init__).parameters  # a subclass may reuse an old name
        old = [name for name in former.NAMES if name in config and name not in own]
        if whole:
            checks.require_entries("SpinNeuron", config, former.NAMES if old else ("driver",))
        return cls(**(former.today(config, old) if old else config))

    # --- inside -----------------------------------------------------------------------------

    def _slope(self, pulse_width, anisotropy):
        curve = self.curve_at(pulse_width, anisotropy)
        return curve.slope / self.device.critical_current_per_stability

    def _nominal_midpoint(self):
        return float(self.curve_at(*self.nominal_knobs()).midpoint)

    def knob_weights(self) -> tuple[Any, Any]:
        """The weights that hold the two knobs, in the order of `KNOBS`."""
        return observation.of(self).knobs(self)

    def _has_constant_knobs(self):
        """Whether the knobs are NumPy arrays now, which become constants of an export."""
        return isinstance(self.knob_weights()[0], np.ndarray)

    def setting(self, dtype: str) -> tuple[Any, Any]:
        """`ln(t_p / t_D)` and `Delta` of every knob, as the driver makes them.

        `t_D` is the device's diffusion time and `Delta` its thermal stability. The weights are
        clipped to the device's range and rounded to the driver's grid. The gradient ignores both
        steps, so that a knob at a limit can still move back.

        Returns:
            Two tensors of this dtype, or NumPy arrays if the knobs are constants of an export.
        """
        frozen, stored = self._has_constant_knobs(), self.knob_weights()
        weights: Array
        if frozen:
            xp, weights = np, np.asarray(stored, "float64")
        else:
            xp, casts = ops, [ops.cast(weight, dtype) for weight in stored]
            weights = ops.stack(
                [
                    weight if knob in self.trained_knobs else ops.stop_gradient(weight)
                    for knob, weight in zip(KNOBS, casts)
                ]
            )
        logs = self.knob_scale * weights
        exact = laws.stop_gradient(xp, logs)
        bounds = self.knob_scale * np.array([self._ranges[knob].bounds for knob in KNOBS])
        low, high = bounds.T.reshape(2, len(KNOBS), *(1,) * (len(logs.shape) - 1))
        made = xp.clip(exact, low, high)
        if any(self._grids.values()):
            made = [
                log if grid is None else xp.log(grid(xp, xp.exp(log)))
                for log, grid in zip(laws.unstack(xp, made), map(self._grids.get, KNOBS))
            ]
            made = xp.stack(made)
        log_width, log_anisotropy = laws.unstack(xp, logs + (made - exact))
        log_nominal = math.log(self.device.nominal_pulse_width / self.device.diffusion_time)
        setting = log_nominal + log_width, self.device.thermal_stability * xp.exp(log_anisotropy)
        if frozen:
            return tuple(v.astype(keras.backend.standardize_dtype(dtype)) for v in setting)
        return setting

    def _prepare_draws(self):
        self.seed_generator = None
        # Its state is the seed of the chip that training holds; zeros mean that none is held.
        self.held_chip = None if self.spread is None else keras.random.SeedGenerator(0)
        if self.output_mode != "probability" or self.spread is not None:
            self.seed_generator = keras.random.SeedGenerator(self.seed)
            # TensorFlow has no XLA kernel for binomial draws; `supports_jit` tells Keras's "auto".
            draws_counts = self.output_mode != "probability" and self.pulses > draws.FEW_PULSES
            draws_counts = draws_counts and not self.remembers(self.pulses)
            self.supports_jit = not draws_counts or keras.backend.backend() != "tensorflow"

    def _check_box(self):
        """Refuse a device whose range of knobs exceeds the range of the switching model."""
        for knob in self.trained_knobs:
            low, high = knob_range(self.device, knob)
            if low == high:
                needed = "a pulse_width_range"
                if knob == "anisotropy":
                    needed = "a vcma_coefficient and a gate_voltage_range"
                rest = tuple(name for name in self.trained_knobs if name != knob)
                raise ValueError(
                    f"This device cannot change its {knob}: its range is the single value {low:g}. "
                    f"Give it {needed}, or leave {knob!r} out of `train`: train={rest}."
                )
        axes = [np.geomspace(*knob_range(self.device, knob), 9) for knob in KNOBS]
        width, anisotropy = (grid.ravel() for grid in np.meshgrid(*axes))
        switching.check_domain(width, anisotropy, self.device, self.switching_model)
        curve = self.curve_at(width, anisotropy)
        stability = self.device.stability_at(anisotropy)
        switching.check_midpoint(curve, stability, self.switching_model)
        if isinstance(curve, RationalLogit):
            switching.check_rise(curve, width, anisotropy)

    def _knob_shape(self, input_shape):
        if isinstance(input_shape, dict) or any(isinstance(n, (list, tuple)) for n in input_shape):
            raise _not_one_tensor(self.name, f"inputs of the shapes {input_shape}")
        if self.shared_axes is None:
            axes = {len(input_shape) - 1}
            shape = (input_shape[-1],)
        else:
            rank = len(input_shape)
            bad = [a for a in self.shared_axes if a % rank == 0 or not -rank < a < rank]
            if bad:
                raise ValueError(
                    f"shared_axes = {self.shared_axes} names axes {bad} that an input of shape "
                    f"{tuple(input_shape)} cannot share; use 1 to {rank - 1}."
                )
            shared = {axis % rank for axis in self.shared_axes}
            axes = set(range(1, rank)) - shared
            shape = tuple(1 if k in shared else input_shape[k] for k in range(1, rank))
        if None in shape or len(input_shape) < 2:
            raise ValueError(
                f"SpinNeuron must know the size of every axis with knobs of its own; the input "
                f"has shape {tuple(input_shape)}. Give the size of axes {sorted(axes)} (for "
                "example in keras.Input), or list them in `shared_axes`."
            )
        self.input_spec = keras.layers.InputSpec(
            min_ndim=2,
            ndim=None if self.shared_axes is None else len(input_shape),
            axes={axis if self.shared_axes is not None else -1: input_shape[axis] for axis in axes},
        )
        return shape

    def _start(self, knob):
        """Initializer of a weight, clipped to the device's range."""
        initializer = getattr(self, f"{knob}_initializer")
        box = self._ranges[knob]

        def start(shape, dtype):
            return box(initializer(shape, dtype=dtype))

        return start

    def _value(self, knob):
        weight = getattr(self, f"log_{knob}")
        if weight is None:
            raise ValueError(
                f"Layer {self.name!r} is not built, so it has no knobs yet: call the model once on "
                "data, or give it a keras.Input."
            )
        return self._ranges[knob].to_value(ops.convert_to_numpy(weight))

    def _on_grid(self, knob, value):
        """Value of a knob as the driver makes it."""
        grid, nominal = self._grids[knob], knob_nominal(self.device, knob)
        return value if grid is None else grid(np, value / nominal) * nominal

    def _given(self, name, value, unit):
        """Settings that a user assigns, as one number for every knob."""
        shape = self._value("pulse_width").shape  # of both knobs
        value = checks.array(name, value, f"a number in {unit}, or an array of numbers in {unit}")
        try:
            return np.broadcast_to(value, shape)
        except ValueError:
            raise ValueError(
                f"{name} has values of the shape {value.shape}, but the knobs of layer "
                f"{self.name!r} have the shape {shape}; give one number in {unit} for all, or an "
                "array of this shape."
            ) from None

    def _assign(self, knob, value, name, given, unit):
        """Set a knob; an error speaks of the setting `name` and the values that the user gave."""
        low, high = knob_range(self.device, knob)
        good = (value >= low * (1 - 1e-9)) & (value <= high * (1 + 1e-9))
        if not np.all(good):
            lowest, highest = getattr(self.device, f"{name}_range")
            raise ValueError(
                f"{name} = {given[~good].flat[0]:g} {unit} is outside the range of the device, "
                f"[{lowest:g}, {highest:g}] {unit} ({name}_range). Use a value inside, or another "
                "device."
            )
        self._set(knob, value)

    def _set(self, knob, value):
        """Set a knob to values in SI units, moved into the device's range."""
        weight = self._ranges[knob].to_weight(np.clip(value, *knob_range(self.device, knob)))
        getattr(self, f"log_{knob}").assign(weight)


def _not_one_tensor(name, got):
    return ValueError(f"Layer {name!r} needs one tensor of real numbers as input; got {got}.")
