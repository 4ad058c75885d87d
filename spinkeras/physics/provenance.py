"""What a citation still covers: texts about a description, kept true when values change.

Whichever way a frozen dataclass of values is copied with changes (`replace`, `dataclasses.replace`,
a method, a fit), its texts `source` and `assumed` would go on to claim the old values. A field that
every copy takes along, `origin`, holds what the texts were written about; it is in no file and not
compared.
"""

import dataclasses
import re

from spinkeras import checks

TEXTS = ("source", "assumed")
_CHANGED = "Changed since: "


def values(item):
    """Fields of a description by name, without the hidden one: what files and checks go by."""
    names = [field.name for field in dataclasses.fields(item) if field.name != "origin"]
    return {name: getattr(item, name) for name in names}


class _Origin(dict):
    """The values a text was written about; from a copy of a description only."""


def keep(item):
    """At the end of `__post_init__`: add to the texts which fields have changed since.

    A text that was changed with the values is about the new ones and stays as it is.

    Args:
        item: frozen dataclass with the fields `origin`, `source` and perhaps `assumed`.
    """
    own = values(item)
    if not (item.origin is None or isinstance(item.origin, _Origin)):
        raise ValueError(
            f"origin = {checks.shown(item.origin)} is not for you to give; leave it out."
        )
    before = own if item.origin is None else item.origin
    changed = [name for name in own if name not in ("name", *TEXTS) and own[name] != before[name]]
    for text in TEXTS:
        if changed and own.get(text) and own[text] == before[text]:
            object.__setattr__(item, text, _with_changes(own[text], changed))
    object.__setattr__(item, "origin", _Origin(values(item)))


def _with_changes(text, changed):
    """`text` with these fields in its list of changes."""
    text, *earlier = re.split(f" {_CHANGED}([a-z_, ]+)[.]$", text)
    known = earlier[0].split(", ") if earlier else []
    names = ", ".join(dict.fromkeys([*known, *changed]))
    return f"{text} {_CHANGED}{names}."
