"""Texts about a source: a copy with other values says which ones changed."""

import copy
import dataclasses
import functools
import pickle

import pytest

import spinkeras
from spinkeras import MTJDevice

COPIES = {
    "replace": lambda item, **changes: item.replace(**changes),
    "dataclasses.replace": dataclasses.replace,
    "a copy": lambda item, **changes: copy.deepcopy(item).replace(**changes),
    "a pickle": lambda item, **changes: dataclasses.replace(
        pickle.loads(pickle.dumps(item)), **changes
    ),
    "a file": lambda item, **changes: type(item).from_config(item.get_config()).replace(**changes),
    "one by one": lambda item, **changes: functools.reduce(
        lambda item, one: item.replace(**dict([one])), changes.items(), item
    ),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_with_other_values_does_not_claim_the_source(way):
    def changes_of(item, name):
        value = getattr(item, name)
        if name == "switching_curve":
            return {name: None if value else curve}
        if name == "write_resistance":
            return {name: 1000.0}
        if name == "relaxation_time":
            return {name: 1e-9}
        if name == "reset_efficiency":
            return {name: 0.7}
        if name == "reset_curve":  # only beside a switching_curve
            return {name: curve if item.switching_curve else None}
        if name == "initial_state":
            return {name: "antiparallel"}
        if name == "pulse_width_range":
            return {name: (0.9 * value[0], value[1])}
        if isinstance(value, tuple):
            return {name: tuple(0.9 * v for v in value)}
        return {name: value * (0.99 if name == "ceiling" else 1.01)}

    curve = spinkeras.EmpiricalCurve.preset("sot_80nm")
    originals = [*map(MTJDevice.preset, spinkeras.presets()), curve, curve.replace(source="mine")]
    for item in originals:
        config = item.get_config()
        fields = [name for name in config if name not in ("name", "source", "assumed")]
        texts = [name for name in ("source", "assumed") if name in config]
        for name in fields:
            changes = changes_of(item, name)
            if changes == {name: getattr(item, name)}:  # a rate that is 0
                continue
            changed = COPIES[way](item, **changes)
            for text in texts:
                found = getattr(changed, text)
                assert found.startswith(getattr(item, text))
                assert found.endswith(f" Changed since: {name}.")
            again = COPIES[way](changed, **{name: getattr(item, name)})
            assert again.source == changed.source  # says nothing twice
            own = COPIES[way](item, **changes, **dict.fromkeys(texts, "my own"))
            assert {getattr(own, text) for text in texts} == {"my own"}
        same = COPIES[way](item, name="other", **{fields[0]: getattr(item, fields[0])})
        assert [getattr(same, text) for text in texts] == [getattr(item, text) for text in texts]
        several = {name: changes_of(item, name)[name] for name in fields[:2]}
        assert COPIES[way](item, **several).source.endswith(f": {', '.join(several)}.")
    silent = MTJDevice.preset("stt_arm").replace(source="", assumed="")
    assert COPIES[way](silent, damping=0.02).source == ""


@pytest.mark.parametrize("origin", [{}, {"damping": 0.02}, "me", 0])
def test_nobody_but_a_copy_gives_the_values_that_the_texts_describe(origin):
    for item in (MTJDevice.preset("stt_reference"), spinkeras.EmpiricalCurve.preset("sot_80nm")):
        with pytest.raises(ValueError, match=r"origin = .* is set by the package; leave it out"):
            item.replace(origin=origin)
        assert "origin" not in item.get_config()
        assert item.replace(origin=None) == item


def test_a_text_that_ends_like_a_list_of_changes_is_continued_only_where_it_is_one():
    device = MTJDevice.preset("stt_reference").replace(source="Changed since: 2019, by hand.")
    found = device.replace(damping=0.02).replace(diameter=50e-9, damping=0.03).source
    assert found == "Changed since: 2019, by hand. Changed since: damping, diameter."
