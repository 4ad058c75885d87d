"""Keep the texts about the source of a device true when its values change.

A device is a frozen dataclass. If it is copied with changed values (`replace`,
`dataclasses.replace`, a method, a fit), its texts `source` and `assumed` would still describe the
old values. Therefore a hidden field `origin` holds the values that the texts describe. Every copy
takes it along; it is not saved in files and not compared.
"""

import dataclasses
import re

from spinkeras import checks

TEXTS = ("source", "assumed")
_CHANGED = "Changed since: "


def values(item):
    """Fields of a description by name, without `origin`, as files and checks use them."""
    names = [field.name for field in dataclasses.fields(item) if field.name != "origin"]
    return {name: getattr(item, name) for name in names}


class _Origin(dict):
    """The values that the texts describe; only a copy of a description passes them on."""


def keep(item):
    """Add to the texts which fields have changed; called at the end of `__post_init__`.

    A text that was changed together with the values describes the new ones and is not touched.

    Args:
        item: frozen dataclass with the fields `origin`, `source` and perhaps `assumed`.
    """
    own = values(item)
    if not (item.origin is None or isinstance(item.origin, _Origin)):
        raise ValueError(
            f"origin = {checks.shown(item.origin)} is set by the package; leave it out."
        )
    before = own if item.origin is None else item.origin
    changed = [name for name in own if name not in ("name", *TEXTS) and own[name] != before[name]]
    for text in TEXTS:
        if changed and own.get(text) and own[text] == before[text]:
            object.__setattr__(item, text, _with_changes(own[text], changed))
    object.__setattr__(item, "origin", _Origin(values(item)))


def _with_changes(text, changed):
    """`text` with these fields added to its list of changes."""
    text, *earlier = re.split(f" {_CHANGED}([a-z_, ]+)[.]$", text)
    known = earlier[0].split(", ") if earlier else []
    names = ", ".join(dict.fromkeys([*known, *changed]))
    return f"{text} {_CHANGED}{names}."
