"""An extension of Griffe, which reads docstrings for the site: our headings, as it knows them."""

import re

import griffe

_DOCTEST = re.compile(r"^Example:\n\n(>>> .*(?:\n.+)*)", re.MULTILINE)
_FURTHER = re.compile(r"^Args of (.+):$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Doctests become blocks of code, `Args of the hardware:` a section of parameters."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            text = _DOCTEST.sub(r"**Example:**\n\n```pycon\n\1\n```", obj.docstring.value)
            obj.docstring.value = _FURTHER.sub(r"Other Parameters: Of \1:", text)
