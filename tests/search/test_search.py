"""Search spaces, the energy objective, and searches by keras-tuner in one process."""

import gc
import json
import math
import pathlib
import shutil

import keras
import keras_tuner as kt
import numpy as np
import pytest

import spinkeras
from spinkeras.search.durability import durable
from spinkeras.search.hypermodel import SpinHyperModel, dense_classifier
from spinkeras.search.objective import EnergyObjective, energy_front
from spinkeras.search.space import spin_search_space


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        monkeypatch.delenv(f"KERASTUNER_{name}", raising=False)
    # keras-tuner does so twice per trial, which takes longer than these trials do.
    monkeypatch.setattr(gc, "collect", lambda *args: 0)


def data(n=48):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


def tiny(hp, spin):
    """A network that trains in a moment; eager, because tracing would take longer."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(hp.Int("hidden", 2, 4)),
            spin(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=True,
    )
    return model


def search(tuner, epochs=2):
    x, y = data()
    kwargs = {} if isinstance(tuner, kt.Hyperband) else {"epochs": epochs}
    tuner.search(x, y, validation_data=(x, y), batch_size=len(x), verbose=0, **kwargs)
    return tuner


class TestSearchSpace:
    def test_declares_what_has_several_values(self):
        hp = kt.HyperParameters()
        spin_search_space(hp, recenter=(True, False))
        assert {p.name for p in hp.space} == {
            "spin_device",
            "spin_shortest_pulse_ns",
            "spin_window",
            "spin_gain",
            "spin_train",
            "spin_sharing",
            "spin_recenter",
        }
        ranges = {p.name: p.sampling for p in hp.space if hasattr(p, "sampling")}
        assert set(ranges.values()) == {"log"}  # physical ranges span factors, not differences
        assert len(ranges) == 3

    def test_single_values_take_no_dimension(self):
        hp = kt.HyperParameters()
        settings = spin_search_space(
            hp,
            device="stt_arm",
            shortest_pulse=4e-9,
            window=2.0,
            train="pulse_width",
            sharing="channel",
            gain=2.0,
        )
        assert hp.space == []
        device = settings["device"]
        assert device.pulse_width_range == pytest.approx((4e-9, 8e-9))
        assert device.nominal_pulse_width == pytest.approx(4e-9)
        neuron = spinkeras.SpinNeuron(**settings)
        neuron.build((None, 3))
        np.testing.assert_allclose(neuron.slope, 2.0 * 0.25, rtol=1e-6)
        assert neuron.trained_knobs == ("pulse_width",)

    def test_window_ends_where_the_device_does(self):
        settings = spin_search_space(
            kt.HyperParameters(), device="stt_arm", shortest_pulse=10e-9, window=10.0
        )
        assert settings["device"].pulse_width_range == pytest.approx((10e-9, 20e-9))

    def test_every_sample_is_a_neuron_inside_its_device(self):
        oracle = kt.oracles.RandomSearchOracle(
            objective=kt.Objective("x", "max"), max_trials=50, seed=5
        )
        hp = kt.HyperParameters()
        spin_search_space(hp)
        oracle.update_space(hp)
        seen = set()
        for _ in range(40):
            hp = oracle.get_space()
            hp.values = oracle._random_values()
            settings = spin_search_space(hp)
            neuron = spinkeras.SpinNeuron(**settings)
            neuron.build((None, 5))
            low, high = settings["device"].pulse_width_range
            assert 2e-9 * (1 - 1e-9) <= low < high <= 20e-9 * (1 + 1e-9)
            assert neuron.pulse_width.size == (1 if settings["shared_axes"] else 5)
            np.testing.assert_allclose(neuron.slope, 0.25 * hp.get("spin_gain"), rtol=1e-5)
            seen.add((hp.get("spin_device"), settings["train"]))
        assert len(seen) > 6

    def test_layer_sharing_of_images(self):
        settings = spin_search_space(kt.HyperParameters(), sharing="layer", rank=4)
        neuron = spinkeras.SpinNeuron(**settings)
        neuron.build((None, 4, 4, 3))
        assert neuron.pulse_width.shape == (1, 1, 1)

    def test_pulses_are_drawn_and_paid_for(self):
        hp = kt.HyperParameters()
        arguments = spin_search_space(hp, device="stt_reference", pulses=(1, 4, 16))
        assert hp.values["spin_pulses"] == 1
        hp.values["spin_pulses"] = 16
        arguments = spin_search_space(hp, device="stt_reference", pulses=(1, 4, 16))
        neuron = spinkeras.SpinNeuron(**arguments, seed=1)
        bits = 16 * np.array(neuron(np.zeros((50, 2), "float32")))
        np.testing.assert_array_equal(bits, np.round(bits))
        energies = []
        for count in (1, 16):
            neuron = spinkeras.SpinNeuron(**{**arguments, "pulses": count})
            model = keras.Sequential([keras.Input((2,)), neuron])
            report = spinkeras.energy_report(model, np.zeros((1, 2), "float32"), print_fn=None)
            energies.append(report.total_pj)
        assert energies[1] == pytest.approx(16 * energies[0], rel=1e-6)
        with pytest.raises(ValueError, match="pulses = 0"):
            spin_search_space(hp, device="stt_reference", pulses=(0, 4))

    def test_prefixes_keep_groups_apart(self):
        hp = kt.HyperParameters()
        spin_search_space(hp, prefix="first")
        spin_search_space(hp, prefix="second")
        assert "first_gain" in hp.values
        assert "second_gain" in hp.values

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"device": "stt_arm", "shortest_pulse": 1e-9}, r"pulse range of stt_arm.*2e-09"),
            ({"shortest_pulse": (5e-9, 20e-9)}, "inside the pulse range"),
            ({"shortest_pulse": (5e-9, 2e-9)}, "pair"),
            ({"window": 1.0}, "> 1"),
            ({"gain": 0.0}, "gain"),
            ({"train": ("pulse",)}, "pulse_width"),
            ({"sharing": "all"}, "channel"),
            ({"train": ()}, "nothing"),
            ({"device": "nosuch"}, "Available presets"),
        ],
    )
    def test_errors_teach(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            spin_search_space(kt.HyperParameters(), **arguments)

    def test_several_devices_have_to_be_names(self):
        devices = [spinkeras.MTJDevice.preset(name) for name in ("stt_arm", "stt_reference")]
        with pytest.raises(ValueError, match="preset names"):
            spin_search_space(kt.HyperParameters(), device=devices)


class TestEnergyObjective:
    def test_exchange_rate(self):
        objective = EnergyObjective(delta=0.02, rate=10.0)
        # Ten times less energy makes up for exactly two points of accuracy, at any level.
        for accuracy, energy in ((0.95, 1.0), (0.5, 300.0)):
            assert objective.score(accuracy, energy) == pytest.approx(
                objective.score(accuracy - 0.02, energy / 10)
            )

    def test_reference_never_changes_the_order(self):
        points = [(0.9, 3.0), (0.91, 6.1), (0.8, 0.4), (0.95, 80.0)]
        orders = {
            tuple(np.argsort([EnergyObjective(reference_pj=ref).score(*p) for p in points]))
            for ref in (1e-3, 1.0, 1e6)
        }
        assert len(orders) == 1

    def test_no_exchange(self):
        assert EnergyObjective(delta=0.0).score(0.9, 123.0) == 0.9

    def test_loss(self):
        objective = EnergyObjective(delta=0.1, rate=2.0, metric="val_loss", direction="min")
        assert objective.score(0.5, 2.0) == pytest.approx(0.6)
        assert objective.objective == kt.Objective("energy_score", "min")

    @pytest.mark.parametrize(
        "bad",
        [
            {"delta": -1},
            {"delta": math.nan},
            {"rate": 1.0},
            {"reference_pj": 0},
            {"direction": "x"},
        ],
    )
    def test_refuses(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            EnergyObjective(**bad)

    def test_energy_of_zero(self):
        with pytest.raises(ValueError, match="no logarithm"):
            EnergyObjective().score(0.9, 0.0)

    def test_in_the_history(self):
        x, y = data()
        model = SpinHyperModel(tiny).build(kt.HyperParameters())
        history = model.fit(
            x,
            y,
            validation_data=(x, y),
            epochs=2,
            verbose=0,
            batch_size=len(x),
            callbacks=[spinkeras.EnergyTracker(), EnergyObjective()],
        ).history
        expected = [
            a - 0.01 * math.log2(e)
            for a, e in zip(history["val_accuracy"], history["val_energy_pj"])
        ]
        np.testing.assert_allclose(history["energy_score"], expected, rtol=1e-12)

    def test_missing_key_says_what_to_do(self):
        x, y = data()
        model = SpinHyperModel(tiny).build(kt.HyperParameters())
        with pytest.raises(ValueError, match=r"val_energy_pj.*EnergyTracker"):
            model.fit(x, y, verbose=0, callbacks=[EnergyObjective()])


class TestHyperModel:
    def test_network_function(self):
        hp = kt.HyperParameters()
        model = SpinHyperModel(tiny, device="stt_arm").build(hp)
        (neuron,) = spinkeras.spin_neurons(model)
        assert neuron.device.name == "stt_arm"
        assert "hidden" in hp.values

    def test_existing_model(self):
        old = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)]
        )
        old.compile("adam", "mse")
        model = SpinHyperModel(old, device="stt_arm").build(kt.HyperParameters())
        assert len(spinkeras.spin_neurons(model)) == 1
        np.testing.assert_array_equal(model.layers[0].kernel, old.layers[0].kernel)

    def test_classifier(self):
        hp = kt.HyperParameters()
        network = dense_classifier((4, 4), 3, hidden=8, hidden_layers=(1, 2))
        model = SpinHyperModel(network).build(hp)
        assert model.output_shape == (None, 3)
        assert {"learning_rate", "hidden_layers"} <= set(hp.values)
        assert "hidden" not in hp.values

    def test_layer_sharing_needs_the_rank(self):
        conv = keras.layers.Conv2D(2, 1, activation="relu", name="conv")
        old = keras.Sequential([keras.Input((4, 3, 2)), conv, keras.layers.Flatten()])
        old.compile("adam", "mse")
        with pytest.raises(ValueError, match=r"\['conv_spin'\].*rank = 2 axes"):
            SpinHyperModel(old, sharing="layer").build(kt.HyperParameters())
        model = SpinHyperModel(old, sharing="layer", rank=4).build(kt.HyperParameters())
        assert spinkeras.spin_neurons(model)[0].pulse_width.size == 1

    def test_refuses_models_it_cannot_use(self):
        def bare(hp, spin):
            return keras.Sequential([keras.Input((2,)), spin()])

        def plain(hp, spin):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("adam", "mse")
            return model

        with pytest.raises(ValueError, match="compile"):
            SpinHyperModel(bare).build(kt.HyperParameters())
        with pytest.raises(ValueError, match="no SpinNeuron"):
            SpinHyperModel(plain).build(kt.HyperParameters())
        with pytest.raises(ValueError, match="function"):
            SpinHyperModel(None)


class TestSearches:
    @pytest.mark.parametrize(
        ("wrap", "kind"),
        [
            (durable, "Hyperband"),
            pytest.param(durable, "BayesianOptimization", marks=pytest.mark.slow),
            pytest.param(lambda cls: cls, "RandomSearch", marks=pytest.mark.slow),
            pytest.param(durable, "RandomSearch", marks=pytest.mark.slow),
            pytest.param(durable, "GridSearch", marks=pytest.mark.slow),
        ],
        ids=["hyperband", "bayesian", "plain", "random", "grid"],
    )
    def test_search_and_reload_the_best(self, kind, wrap, tmp_path):
        hypermodel = SpinHyperModel(tiny, shortest_pulse=(2e-9, 8e-9))
        limit = {"max_epochs": 2} if kind == "Hyperband" else {"max_trials": 2}
        tuner = search(
            wrap(getattr(kt, kind))(
                hypermodel,
                objective=hypermodel.objective.objective,
                directory=tmp_path,
                project_name="search",
                seed=1,
                **limit,
            )
        )
        trials = list(tuner.oracle.trials.values())
        assert {trial.status for trial in trials} == {"COMPLETED"}
        best = tuner.oracle.get_best_trials(1)[0]
        assert best.score == max(trial.score for trial in trials)
        # The stored weights are those of the best epoch: its metric and energy come back.
        model = tuner.get_best_models(1)[0]
        x, y = data()
        assert model.evaluate(x, y, verbose=0)[1] == pytest.approx(
            best.metrics.get_last_value("val_accuracy")
        )
        report = spinkeras.energy_report(model, x, print_fn=None)
        assert report.total_pj == pytest.approx(
            best.metrics.get_last_value("val_energy_pj"), rel=1e-5
        )

    @pytest.mark.slow
    def test_callbacks_of_the_user_see_the_score(self, tmp_path):
        hypermodel = SpinHyperModel(tiny)
        tuner = kt.RandomSearch(
            hypermodel,
            objective=hypermodel.objective.objective,
            max_trials=1,
            directory=tmp_path,
            project_name="search",
        )
        x, y = data()
        log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
        tuner.search(
            x, y, validation_data=(x, y), batch_size=len(x), verbose=0, epochs=1, callbacks=[log]
        )
        assert "energy_score" in (tmp_path / "log.csv").read_text().splitlines()[0]

    def test_front(self, tmp_path):
        def network(hp, spin):
            hp.Choice("accuracy", [0.5, 0.7, 0.6, 0.7])
            return tiny(hp, spin)

        class Known(SpinHyperModel):
            points = iter([(0.5, 1.0), (0.7, 4.0), (0.6, 5.0), (0.8, 9.0), (0.7, 3.0)])

            def fit(self, hp, model, *args, **kwargs):
                accuracy, energy = next(self.points)
                score = self.objective.score(accuracy, energy)
                return {
                    "val_accuracy": accuracy,
                    "val_energy_pj": energy,
                    "energy_score": score,
                }

        hypermodel = Known(network)
        tuner = search(
            kt.RandomSearch(
                hypermodel,
                objective=hypermodel.objective.objective,
                max_trials=5,
                directory=tmp_path,
                project_name="search",
            )
        )
        front = energy_front(tuner)
        assert [row["energy_pj"] for row in front] == [1.0, 3.0, 4.0, 5.0, 9.0]
        assert [row["metric"] for row in front if row["on_front"]] == [0.5, 0.7, 0.8]

    def test_front_without_trials(self, tmp_path):
        tuner = kt.RandomSearch(
            SpinHyperModel(tiny), objective="val_loss", directory=tmp_path, project_name="none"
        )
        with pytest.raises(ValueError, match="No finished trial"):
            energy_front(tuner)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def chief(monkeypatch, tmp_path):
    """Makes the chief's tuner, whose oracle answers as it would over the network."""
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")

    def make(kind=kt.RandomSearch, lease=10.0, **limit):
        def build(hp):
            hp.Float("x", 0.0, 1.0)
            hp.Boolean("y")
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("adam", "mse")
            return model

        tuner = durable(kind, lease=lease)(
            build,
            objective=kt.Objective("score", "max"),
            directory=tmp_path,
            project_name="search",
            **(limit or {"max_trials": 3}),
        )
        tuner.oracle.clock = Clock()
        tuner.oracle.verbose = 0
        tuner.save()
        return tuner

    return make


def beat(tuner, worker, count):
    path = f"{tuner.project_dir}/alive_{worker}.json"
    with open(path, "w") as file:
        json.dump(count, file)


def finish(oracle, trial, score=0.5):
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


class TestDurableOracle:
    def test_silent_worker_loses_its_trial_to_another(self, chief):
        tuner = chief()
        oracle = tuner.oracle
        lost = oracle.create_trial("tuner0")
        oracle.update_trial(lost.trial_id, {"score": 0.9})  # killed between report and end
        kept = oracle.create_trial("tuner1")
        for count in range(4):
            beat(tuner, "tuner1", count)
            oracle.clock.now += 5.0
            oracle.reap()
        assert "tuner0" not in oracle.ongoing_trials
        assert oracle.ongoing_trials["tuner1"] is kept
        finish(oracle, kept)
        again = oracle.create_trial("tuner1")
        assert again.trial_id == lost.trial_id
        assert again.hyperparameters.values == lost.hyperparameters.values
        assert not again.metrics.exists("score")  # the killed run's result does not count
        finish(oracle, again, 0.1)
        assert oracle.get_trial(lost.trial_id).score == 0.1

    def test_worker_that_beats_keeps_its_trial_for_ever(self, chief):
        tuner = chief()
        trial = tuner.oracle.create_trial("tuner0")
        for count in range(100):
            beat(tuner, "tuner0", count)
            tuner.oracle.clock.now += 9.0
            tuner.oracle.reap()
        assert tuner.oracle.ongoing_trials["tuner0"] is trial

    def test_restarted_worker_gets_its_trial_back(self, chief):
        oracle = chief().oracle
        trial = oracle.create_trial("tuner0")
        oracle.update_trial(trial.trial_id, {"score": 0.9})
        again = oracle.create_trial("tuner0")
        assert again.trial_id == trial.trial_id
        assert not again.metrics.exists("score")

    def test_nobody_leaves_while_a_trial_may_come_back(self, chief):
        oracle = chief(max_trials=1).oracle
        trial = oracle.create_trial("tuner0")
        assert oracle.create_trial("tuner1").status == "IDLE"
        assert "tuner1" in oracle.tuner_ids
        finish(oracle, trial)
        assert oracle.create_trial("tuner1").status == "STOPPED"
        assert oracle.create_trial("tuner0").status == "STOPPED"
        assert oracle.tuner_ids == set()

    def test_second_end_of_a_trial_is_ignored(self, chief):
        tuner = chief()
        oracle = tuner.oracle
        trial = oracle.create_trial("tuner0")
        oracle.reap()
        oracle.clock.now += 11.0
        oracle.reap()  # suspended, not dead
        again = oracle.create_trial("tuner1")
        assert again.trial_id == trial.trial_id
        finish(oracle, again, 0.3)
        again.status = "COMPLETED"
        oracle.end_trial(trial)
        assert oracle.end_order == [trial.trial_id]
        assert oracle.get_trial(trial.trial_id).score == 0.3

    def test_restarted_chief_keeps_living_workers(self, chief):
        first = chief()
        done = first.oracle.create_trial("tuner0")
        finish(first.oracle, done)
        alive = first.oracle.create_trial("tuner0")
        dead = first.oracle.create_trial("tuner1")

        second = chief()
        oracle = second.oracle
        assert {k: t.trial_id for k, t in oracle.ongoing_trials.items()} == {
            "tuner0": alive.trial_id,
            "tuner1": dead.trial_id,
        }
        for count in range(4):
            beat(second, "tuner0", count)
            oracle.reap()
            oracle.clock.now += 5.0
        finish(oracle, oracle.get_trial(alive.trial_id))
        assert oracle.create_trial("tuner0").trial_id == dead.trial_id
        assert oracle.get_trial(done.trial_id).score == 0.5

    def test_finished_trial_is_not_queued_again(self, chief):
        # What keras-tuner does: a trial that ended stays "ongoing" in the file until the next.
        first = chief()
        trial = first.oracle.create_trial("tuner0")
        finish(first.oracle, trial)
        state = json.loads((path := tuner_file(first)).read_text())
        state["ongoing_trials"] = {"tuner0": trial.trial_id}
        path.write_text(json.dumps(state))
        oracle = chief().oracle
        assert oracle.ongoing_trials == {}
        assert oracle._retry_queue == []
        assert oracle.create_trial("tuner0").trial_id != trial.trial_id

    def test_trial_written_but_unknown_to_the_search(self, chief):
        first = chief()
        finish(first.oracle, first.oracle.create_trial("tuner0"))
        before = tuner_file(first).read_text()
        orphan = first.oracle.create_trial("tuner0")
        tuner_file(first).write_text(before)  # killed between the two files
        oracle = chief().oracle
        trial = oracle.create_trial("tuner0")
        assert trial.trial_id == orphan.trial_id
        assert len(oracle.trials) == 2

    def test_hyperband_goes_on_after_a_loss(self, chief):
        tuner = chief(kt.Hyperband, max_epochs=2, factor=2)
        oracle = tuner.oracle
        lost = oracle.create_trial("dead")
        runs = []
        for count in range(200):
            beat(tuner, "tuner0", count)
            oracle.clock.now += 2.0
            trial = oracle.create_trial("tuner0")
            if trial.status == "STOPPED":
                break
            if trial.status == "RUNNING":
                runs.append(trial.trial_id)
                finish(oracle, trial, score=float(len(runs)))
        assert trial.status == "STOPPED"
        assert lost.trial_id in runs
        assert len(runs) == len(set(runs)) == len(oracle.trials)

    def test_grid_search_goes_on_where_it_was(self, chief):
        def run(restart):
            oracle, points = chief(kt.GridSearch, max_trials=7).oracle, []
            while True:
                trial = oracle.create_trial("tuner0")
                if trial.status == "STOPPED":
                    return points
                if restart:  # in mid-trial; the chief then takes the worker for alive
                    oracle = chief(kt.GridSearch, max_trials=7).oracle
                points.append(trial.hyperparameters.values)
                finish(oracle, oracle.get_trial(trial.trial_id))
                if restart:
                    oracle = chief(kt.GridSearch, max_trials=7).oracle

        killed = run(restart=True)
        shutil.rmtree(chief(kt.GridSearch).project_dir)
        assert killed == run(restart=False)
        assert len({str(point) for point in killed}) == 7

    @pytest.mark.parametrize("bad", [kt.Oracle, 3])
    def test_refuses_what_is_no_tuner(self, bad):
        with pytest.raises(ValueError, match="subclass"):
            durable(bad)

    def test_refuses_a_lease(self):
        with pytest.raises(ValueError, match="lease"):
            durable(kt.RandomSearch, lease=0)


def tuner_file(tuner):
    return pathlib.Path(tuner.project_dir) / "oracle.json"
