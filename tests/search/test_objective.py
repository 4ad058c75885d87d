"""The energy objective: accuracy and energy as one number."""

import math

import keras_tuner as kt
import numpy as np
import pytest

import spinkeras
from spinkeras.search.hypermodel import SpinHyperModel
from spinkeras.search.objective import EnergyObjective
from tests.search.harness import data, tiny


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
            {"rate": 1 + 1e-9},
            {"reference_pj": 0},
            {"direction": "x"},
        ],
    )
    def test_refuses(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))) as error:
            EnergyObjective(**bad)
        assert "[1, " not in str(error.value)  # the rate 1 itself is refused

    def test_energy_of_zero(self):
        with pytest.raises(ValueError, match="no logarithm"):
            EnergyObjective().score(0.9, 0.0)
        for bad in ("0.9", None, True, 1j, [0.9]):
            with pytest.raises(ValueError, match="must be numbers, the energy in pJ"):
                EnergyObjective().score(bad, 1.0)

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
