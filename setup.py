"""Gives package indexes the README without the links and pictures that only a repository can show.

Everything else about the package is in setup.cfg.
"""

import pathlib
import re

import setuptools

readme = (pathlib.Path(__file__).parent / "README.md").read_text(encoding="utf-8")
readme = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", readme)
readme = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", readme)
setuptools.setup(long_description=readme)
