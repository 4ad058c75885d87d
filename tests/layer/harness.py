"""Neurons of every kind, for tests of the layer."""

import keras

from spinkeras import MTJDevice, NeelBrown
from spinkeras.physics import get_device

FAST = MTJDevice.preset("stt_reference").replace(pulse_width_range=(0.5e-9, 2e-9))
SLOW = MTJDevice.preset("stt_reference").replace(
    pulse_width_range=(1e-7, 1e-6), nominal_pulse_width=2e-7
)
VARIANTS = {
    "default": {},
    "fixed": {"train": ()},
    "raw": {"recenter": False},
    "one knob": {"train": "pulse_width", "knob_scale": 5.0},
    "anisotropy": {"train": ("anisotropy",), "device": "vcma_uta2022"},
    "regularised": {
        "pulse_width_regularizer": "l2",
        "anisotropy_constraint": "non_neg",
        "pulse_width_initializer": keras.initializers.RandomUniform(0.0, 0.2, seed=1),
    },
    "neel_brown": {
        "device": SLOW,
        "switching_model": NeelBrown(barrier_exponent=1.5, attempt_time=1e-9),
    },
    "ballistic": {"device": FAST, "switching_model": "ballistic"},
}


def law_of(device):
    """The law of a free-running junction: its measured curve, or else the macrospin's."""
    curve = get_device(device).switching_curve
    return "equilibrium" if curve is None else curve


def training_step(layer, x, **options):
    """A traced function of the output of a layer and of its gradients (TensorFlow)."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, **options)
        return y, tape.gradient(y, [x, *(w.value for w in layer.trainable_variables)])

    return step
