"""What a callback does to a model's steps ends with its own fit, however that ends.

Runs on every backend.
"""

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import EnergyAssumptions, EnergyBudget, EnergyTracker, NewChipEachEpoch, SpinNeuron
from tests.harness import BACKEND, some_slow

pytestmark = pytest.mark.backends

x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
y = np.random.default_rng(1).normal(size=(16, 1)).astype("float32")
CALLBACKS = {
    "tracker": EnergyTracker,
    "budget": lambda: EnergyBudget(1e-15, rate=0.5, start=0.7, monitor="loss", mode="min"),
    "chip": NewChipEachEpoch,
}


def network(base=None, spread=False, eager=False):
    keras.utils.set_random_seed(3)
    spread = spinkeras.ChipSpread(stability=0.1) if spread else None
    base = base or keras.Sequential([keras.Input((6,)), SpinNeuron(spread=spread, seed=2)])
    model = keras.Sequential([keras.Input((6,)), base, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager)
    return model


class Breaks(keras.callbacks.Callback):
    """Raises when a method of its own is called for the second time."""

    def __init__(self, where, error):
        super().__init__()
        self.where, self.error, self.calls = where, error, 0

    def set_model(self, model):
        super().set_model(model)
        plain = getattr(type(self), self.where).__get__(self)

        def method(*args, **kwargs):
            self.calls += 1
            if self.calls == 2:
                raise self.error("stop here")
            return plain(*args, **kwargs)

        setattr(self, self.where, method)


def broken_data():
    yield x[:8], y[:8]
    yield x[8:16], y[8:16]
    raise RuntimeError("stop here")


def interrupted(model, callback, end):
    """Fit with the callback until `end`: a method of a callback behind it, or the data."""
    options = {"epochs": 2, "verbose": 0, "batch_size": 8, "validation_data": (x, y)}
    if end == "nothing":
        model.fit(x, y, callbacks=[callback], **options)
    elif end == "data":
        with pytest.raises(Exception, match="stop here"):
            model.fit(broken_data(), callbacks=[callback], verbose=0, shuffle=False)
    else:
        error = KeyboardInterrupt if "batch" in end else ValueError
        with pytest.raises(error, match="stop here"):
            model.fit(x, y, callbacks=[callback, Breaks(end, error)], **options)


def states(model):
    layers = spinkeras.spin_neurons(model)
    return [*model.weights, *(v.seed_generator.state for v in layers if v.seed_generator)]


def clean_copy(model, make):
    """A model that never met a callback, at the same weights and positions of its draws."""
    copy = make()
    for own, other in zip(states(copy), states(model), strict=True):
        own.assign(keras.ops.convert_to_numpy(other))
    for layer in spinkeras.spin_neurons(copy):
        for tally in (layer.meter_sums, layer.energy_weight, layer.energy_seen):
            tally.assign(np.zeros(tally.shape))
    return copy


ENDS = {
    "tracker": some_slow(["on_train_batch_begin", "on_test_batch_begin", "data"], "data"),
    "budget": some_slow(
        ["nothing", "on_train_batch_begin", "on_epoch_end", "on_test_end"],
        "nothing",
        "on_train_batch_begin",
    ),
    "chip": some_slow(["on_train_batch_end", "on_epoch_begin", "data"], "on_epoch_begin"),
}
COMPILED_ENDS = {
    "tracker": ("on_train_batch_end", True),
    "budget": ("on_train_batch_begin", False),
    "chip": ("on_train_batch_begin", False),
}


@pytest.mark.filterwarnings("ignore:No epoch stayed")
@pytest.mark.parametrize(
    ("kind", "end", "eager", "again"),
    [
        *(
            pytest.param(kind, *end.values, True, False, marks=end.marks)
            for kind, ends in ENDS.items()
            for end in ends
        ),
        *(
            pytest.param(
                kind, end, False, again, marks=pytest.mark.slow if kind != "tracker" else ()
            )
            for kind, (end, again) in COMPILED_ENDS.items()
        ),
    ],
)
def test_what_follows_is_as_if_the_callback_had_never_been_there(kind, end, eager, again):
    def make():
        return network(spread=kind == "chip", eager=eager)

    model = make()
    interrupted(model, CALLBACKS[kind](), end)
    if again:
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager)
    clean = clean_copy(model, make)
    tallies = [np.array(layer.meter_sums) for layer in spinkeras.spin_neurons(model)]
    evaluated, fitted, answers = [], [], []
    for each in (model, clean):
        evaluated.append(each.evaluate(x, y, verbose=0))
        fitted.append(each.fit(x, y, batch_size=8, verbose=0, shuffle=False).history)
        answers.append(each.predict(x, verbose=0))
    assert evaluated[0] == evaluated[1]
    assert fitted[0] == fitted[1]
    np.testing.assert_array_equal(*answers)
    for own, other in zip(model.trainable_weights, clean.trainable_weights, strict=True):
        np.testing.assert_array_equal(np.array(own), np.array(other))
    for layer, before in zip(spinkeras.spin_neurons(model), tallies, strict=True):
        np.testing.assert_array_equal(np.array(layer.meter_sums), before)
    assert model.train_function is not None
    assert type(model.train_function) is type(clean.train_function)


@pytest.mark.parametrize(
    "end", some_slow(["nothing", "on_train_batch_begin", "on_epoch_end"], "on_epoch_end")
)
@pytest.mark.filterwarnings("ignore:No epoch stayed")
def test_a_new_budget_starts_at_its_own_weight_and_a_tracker_has_no_price(end, tmp_path):
    model = network(eager=True)
    budget = EnergyBudget(1e-15, rate=0.5, start=0.7, monitor="loss", mode="min")
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.save_weights(tmp_path / "mid.weights.h5")
    )
    if end == "nothing":
        model.fit(x, y, verbose=0, callbacks=[budget, save])
    else:
        callbacks = [budget, save, Breaks(end, KeyboardInterrupt)]
        with pytest.raises(KeyboardInterrupt, match="stop here"):
            model.fit(x, y, verbose=0, epochs=2, callbacks=callbacks)
    model.save_weights(tmp_path / "after.weights.h5")
    other = network(eager=True)
    for name, left in (("mid", True), ("after", False)):
        other.load_weights(tmp_path / f"{name}.weights.h5")
        assert bool(np.array(spinkeras.spin_neurons(other)[0].energy_weight)) is left
    fresh = EnergyBudget(1e-15, rate=0.0, start=0.2, monitor="loss", mode="min")
    history = model.fit(x, y, verbose=0, callbacks=[fresh]).history
    assert history["energy_weight"] == [pytest.approx(0.2)]
    # A file of the middle of a budget: its weight goes on in a budget, and nowhere else.
    for callback in (EnergyTracker(), None):
        ends = []
        for each in (model, network(eager=True)):
            each.load_weights(tmp_path / "mid.weights.h5")
            options = {"batch_size": 8, "verbose": 0, "shuffle": False}
            callbacks = [callback] if callback and each is model else []
            ends.append(each.fit(x, y, callbacks=callbacks, **options).history["loss"])
        assert ends[0] == ends[1]


@pytest.mark.filterwarnings("ignore:No epoch stayed")
def test_models_that_share_layers_keep_their_budgets_apart():
    """Each spends what it would spend alone, whichever other model had a budget before."""
    base = keras.Sequential([keras.Input((6,)), SpinNeuron(), keras.layers.Dense(6), SpinNeuron()])
    models = [network(base, eager=True), network(base, eager=True)]
    part = keras.Sequential([keras.Input((6,)), base.layers[0], keras.layers.Dense(1)])
    part.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    start = base.get_weights()
    for limit in (1e-15, 1e-3):  # never kept, always kept
        for model in (*models, part):
            base.set_weights(start)
            budget = EnergyBudget(limit, rate=1.0, start=0.01, monitor="loss", mode="min")
            history = model.fit(x, y, batch_size=8, verbose=0, callbacks=[budget]).history
            weights = history["energy_weight"]
            assert (weights[0] > 0.01) == (limit < 1e-12), (limit, model.name)
            spent = spinkeras.energy_report(model, x, print_fn=None).total_pj
            assert history["energy_pj"][-1] == pytest.approx(spent, rel=0.2)


def test_trackers_of_one_fit_agree_or_are_refused():
    model = network(eager=True)
    first, second = EnergyTracker(), EnergyTracker()
    options = {"verbose": 0, "validation_data": (x, y), "epochs": 2}
    model.fit(x, y, callbacks=[first, second], **options)
    assert first.results == second.results
    assert np.isfinite(first.results["val_energy_pj"])
    other = EnergyTracker(EnergyAssumptions(reset=False))
    with pytest.raises(ValueError, match="in different ways"):
        model.fit(x, y, callbacks=[EnergyTracker(), other], **options)
    model.fit(x, y, callbacks=[other], **options)
    assert other.results["energy_pj"] < 0.8 * first.results["energy_pj"]


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled there")
def test_the_same_callback_compiles_nothing_twice():
    traced = []

    class Counted(keras.layers.Layer):
        def call(self, inputs):
            traced.append(1)
            return inputs

    model = keras.Sequential([keras.Input((6,)), Counted(), SpinNeuron(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    model.fit(x, y, verbose=0, callbacks=[EnergyTracker()])
    traced.clear()
    for callbacks in ([], [EnergyTracker()], [], [EnergyTracker()]):
        history = model.fit(x, y, verbose=0, callbacks=callbacks).history
        assert ("energy_pj" in history) == bool(callbacks)
    assert not traced


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution")
@pytest.mark.parametrize("kind", ["tracker", "budget", "chip"])
def test_a_distribution_takes_the_measured_steps(kind):
    """Keras asks there for the places of values, which it has taken out of the model."""
    callbacks = {
        "tracker": EnergyTracker,
        "budget": lambda: EnergyBudget(1e-12, monitor="loss"),
        "chip": NewChipEachEpoch,
    }
    spread = spinkeras.ChipSpread() if kind == "chip" else None
    data = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")

    def history(distribution):
        keras.distribution.set_distribution(distribution)
        keras.utils.set_random_seed(5)
        neuron = SpinNeuron(spread=spread, name="spin")
        layers = [keras.Input((4,)), neuron, keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse")
        options = {"verbose": 0, "validation_data": (data, data[:, :1])}
        fit = model.fit(data, data[:, :1], epochs=2, callbacks=[callbacks[kind]()], **options)
        plain = model.fit(data, data[:, :1], **options)
        return {**fit.history, "plain": plain.history["loss"]}

    try:
        devices = keras.distribution.list_devices()
        found = history(keras.distribution.DataParallel(devices=devices))
        expected = history(None)
    finally:
        keras.distribution.set_distribution(None)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)
