"""What objects say of themselves: one line, a card, a table, a file; never more than once."""

import dataclasses
import pathlib

import keras
import numpy as np
import pandas
import pytest

import spinkeras
from spinkeras import cards
from spinkeras.calibration import read_table

HOSTILE = "<script>alert('&\\n')</script>" * 50
REFERENCE = spinkeras.MTJDevice.preset("stt_reference")


def model(**options):
    return keras.Sequential([keras.Input((3,)), spinkeras.SpinNeuron(**options)])


def energy(**options):
    data = np.ones((2, 3), "float32")
    return spinkeras.energy_report(model(), data, **{"print_fn": None, **options})


def chips(is_fraction=True):
    values = np.array([0.1, 1 / 3])
    return spinkeras.ChipReport(
        values, np.float32([1.5, 2]), 0.3, spinkeras.ChipSpread(current=0.1), None, is_fraction
    )


def fitted():
    table = {
        "current_a": [6e-5, 7e-5, 8e-5],
        "pulse_width_s": [2e-9] * 3,
        "switched": [15, 40, 65],
        "trials": [100] * 3,
    }
    return spinkeras.fit_device(table, REFERENCE, free=("anisotropy",))


def hostile_energy():
    found = energy()
    rows = [{**found.layers[0], "name": HOSTILE}]
    return dataclasses.replace(found, layers=rows, other_layers={HOSTILE: 1}, assumptions=[HOSTILE])


OBJECTS = {
    "device": lambda: REFERENCE,
    "channel": lambda: spinkeras.MTJDevice.preset("vgsot_zhang2020"),
    "hostile device": lambda: REFERENCE.replace(name=HOSTILE, source=HOSTILE, assumed=HOSTILE),
    "eternal device": lambda: REFERENCE.replace(diameter=500e-9),
    "layer": lambda: model().layers[0],
    "hostile layer": lambda: spinkeras.SpinNeuron(REFERENCE.replace(name="<script>"), name="<b>"),
    "energy": energy,
    "hostile energy": hostile_energy,
    "chips": chips,
    "chips, metric": lambda: chips(False),
    "fit": fitted,
}
PLAIN = {
    "curve": lambda: spinkeras.EmpiricalCurve.preset("sot_80nm").replace(name=HOSTILE),
    "free curve": lambda: spinkeras.MTJDevice.preset("smtj_schnitzspan2023").switching_curve,
    "spread": lambda: spinkeras.ChipSpread(stability=0.1, stuck_low=0.01),
}


@pytest.mark.parametrize("name", [*OBJECTS, *PLAIN])
def test_repr_is_one_short_line_that_never_fails(name):
    thing = {**OBJECTS, **PLAIN}[name]()
    assert type(thing).__name__ in repr(thing)
    assert len(repr(thing).splitlines()) == 1
    assert len(repr(thing)) < 400


@pytest.mark.parametrize("name", OBJECTS)
def test_a_card_is_escaped_and_short(name):
    page = OBJECTS[name]()._repr_html_()
    assert page.startswith("<div")
    assert page.count("<") == page.count(">")
    assert "<script" not in page
    assert "<b>" not in page
    assert len(page) < 8000
    assert page.count("<table") == page.count("</table>")


def test_cards_show_what_follows():
    page = REFERENCE._repr_html_()
    for fact in ("40", "25.2 uA", "7,958 ohm", "3.6 years", "2 to 20 ns", "0.127 1/uA"):
        assert fact in page, fact
    layer = model().layers[0]
    layer.pulse_width = [2e-9, 5e-9, 20e-9]
    assert "2 to 20 ns (device: 2 to 20 ns)" in layer._repr_html_()
    assert "not built" in spinkeras.SpinNeuron()._repr_html_()
    assert cards.duration(7200) == "2 hours"


def test_repr_of_a_layer_is_like_that_of_keras():
    layer = model(name="spin", train="pulse_width").layers[0]
    start = "<SpinNeuron name=spin, built=True, device=stt_reference, train=['pulse_width'],"
    assert repr(layer).startswith(start)


def test_a_printed_report_is_not_shown_once_more(capsys):
    """IPython shows the HTML of a cell's value, or its `repr` where that is `None`."""
    printed = energy(print_fn=print)
    assert capsys.readouterr().out.count("write pJ") == 1
    assert printed._repr_html_() is None
    assert "write pJ" not in repr(printed)
    lines = []
    for quiet in (energy(print_fn=None), energy(print_fn=lines.append)):
        assert "write pJ" in quiet._repr_html_()
        assert quiet.total_pj == printed.total_pj
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", ["energy", "chips", "chips, metric", "fit"])
def test_tables_hold_every_digit(name, tmp_path):
    thing = OBJECTS[name]()
    frame = thing.to_dataframe()
    thing.to_csv(tmp_path / "table.csv")
    again = pandas.read_csv(tmp_path / "table.csv", float_precision="round_trip")
    assert [*again] == [*frame] == [*thing.columns()]
    assert len(again) == len(frame)
    for column in frame:
        np.testing.assert_array_equal(frame[column], again[column])
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_columns_are_those_of_the_report(tmp_path):
    found = energy()
    columns = found.columns()
    assert sum(columns["total_pj"]) == found.total_pj
    assert columns["shortest_pulse_ns"] == [2.0]
    assert columns["share_at_shortest_pulse"] == [1.0]
    odd = hostile_energy()
    odd.to_csv(tmp_path / "odd.csv")
    assert (tmp_path / "odd.csv").read_text().count("script") == HOSTILE.count("script")
    result = fitted()
    result.to_csv(tmp_path / "fit.csv")  # a table that can be fitted again
    for name, values in read_table(tmp_path / "fit.csv").items():
        np.testing.assert_array_equal(values, result.table[name])


# --- devices in files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", spinkeras.presets())
def test_a_device_comes_back_from_its_file(name, tmp_path):
    device = spinkeras.MTJDevice.preset(name).replace(damping=0.02, name=HOSTILE)
    path = tmp_path / "mine.json"
    device.save(path)
    again = spinkeras.MTJDevice.load(path)
    assert again == device
    assert (again.name, again.source, again.assumed) == (HOSTILE, device.source, device.assumed)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_path_stands_wherever_a_preset_name_does(kind, tmp_path):
    device = REFERENCE.replace(damping=0.02)
    device.save(tmp_path / "mine.JSON")
    path = kind(tmp_path / "mine.JSON")
    assert spinkeras.SpinNeuron(path).device == device
    assert spinkeras.DeviceRange(path, "pulse_width").device == device
    assert spinkeras.midpoint_current(2e-9, path) == spinkeras.midpoint_current(2e-9, device)
    energies = [spinkeras.energy.write_energy(5e-5, 2e-9, 0.5, each) for each in (path, device)]
    assert energies[0] == energies[1]
    config = spinkeras.SpinNeuron(path).get_config()
    assert str(tmp_path) not in str(config)  # a layer's file holds the device itself


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "a dictionary of fields"),
        ("{}", "lacks"),
        ('{"diameter": NaN}', "not valid JSON"),
        ("\xff", "UTF-8"),
    ],
)
def test_wrong_contents_are_refused_with_the_file(content, message, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        spinkeras.SpinNeuron(str(path))
    assert "wrong.json" in str(caught.value)


def test_a_field_outside_its_range_is_refused_with_the_file(tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(REFERENCE.to_json().replace('"damping": 0.015', '"damping": 15'))
    with pytest.raises(ValueError, match=r"wrong.json.*damping = 15"):
        spinkeras.MTJDevice.load(path)


def test_what_is_no_device_of_a_name_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none.json.*MTJDevice.save"):
        spinkeras.SpinNeuron("none.json")
    with pytest.raises(FileNotFoundError, match="no file"):
        spinkeras.MTJDevice.load(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'stt_reference'"):
        spinkeras.SpinNeuron("stt_refrence")
    with pytest.raises(ValueError, match=r"MTJDevice\.load"):
        spinkeras.MTJDevice.preset("mine.json")
    for bad in (3, None, b"mine.json", ["mine.json"]):
        with pytest.raises(ValueError, match="path = "):
            spinkeras.MTJDevice.load(bad)
        with pytest.raises(ValueError, match=r"must end in '\.json'"):
            REFERENCE.save(bad)
    with pytest.raises(ValueError, match=r"must end in '\.json'"):
        REFERENCE.save(tmp_path / "mine.txt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        REFERENCE.save(tmp_path / "no" / "mine.json")
