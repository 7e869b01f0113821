"""Sphinx's configuration. The sources are the Markdown files as they are: README.md is the first page."""

from __future__ import annotations

from larder import __version__

project = author = "larder"
version = release = __version__
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "services/*/README.md",
    "provision/**.md",
]
exclude_patterns = [".*", "results", "tests", "workspace"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docs.site.docstrings",
    "docs.site.files",
    "docs.site.menu",
]

myst_heading_anchors = 4
highlight_language = "none"
default_role = "literal"
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
napoleon_use_ivar = True
napoleon_use_rtype = False
# Types of other projects, and those that nobody names: Sphinx knows no page for them.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "larder"
html_static_path = ["static"]
html_css_files = ["larder.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
