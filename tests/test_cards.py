"""What objects say of themselves, in one line or in a card, and never more than once."""

import pytest

import spinkeras
from spinkeras import cards
from tests.objects import OBJECTS, PLAIN, REFERENCE, energy, model


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
