"""Sphinx: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

from twisted_net import __version__

project = "twisted_net"
author = "The twisted_net authors"
release = __version__
html_theme = "furo"
exclude_patterns = ["_build", "news"]
default_role = "literal"
