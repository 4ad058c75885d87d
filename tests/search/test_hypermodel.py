"""Models with searched neurons, and searches by keras-tuner in one process."""

import keras
import keras_tuner as kt
import numpy as np
import pytest

import spinkeras
from spinkeras.search.durability import durable
from spinkeras.search.hypermodel import SpinHyperModel, dense_classifier
from spinkeras.search.objective import energy_front
from tests.search.harness import data, search, tiny


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
            pytest.param(durable, "Hyperband", marks=pytest.mark.slow),
            pytest.param(durable, "BayesianOptimization", marks=pytest.mark.slow),
            pytest.param(lambda cls: cls, "RandomSearch", marks=pytest.mark.slow),
            (durable, "RandomSearch"),
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
