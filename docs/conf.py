"""Sphinx's configuration. Build with: tox run -e docs"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import mtatwist

project = "mtatwist"
author = "The mtatwist contributors"
copyright = "2026, The mtatwist contributors"
release = mtatwist.__version__
version = release

exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A mail transfer agent on Twisted", "fixed_sidebar": True}
