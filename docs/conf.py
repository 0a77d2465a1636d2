"""How Sphinx builds the site: `make docs`."""

import re

import speechbrain_ssl

REPOSITORY = "https://github.com/speechbrain-ssl/speechbrain-ssl"

project = "speechbrain-ssl"
author = copyright = "The speechbrain-ssl developers"
version = release = speechbrain_ssl.__version__

extensions = [
    "myst_parser",  # the guides are Markdown
    "sphinx.ext.autosummary",  # a page for each module, found by itself
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

# SpeechBrain's docstrings are numpy's, but for this heading.
napoleon_google_docstring = False
napoleon_custom_sections = [("Arguments", "params_style")]
napoleon_use_rtype = False
napoleon_use_ivar = True  # fields that are members too stay one entry

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_ignore_module_all = False

default_role = "code"
highlight_language = "none"  # of blocks that name none, as equations

# Of the names in docstrings, those of the library must exist.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!speechbrain_ssl\.).*|.*\._.*")]

html_theme = "furo"
html_title = "speechbrain-ssl"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}


def link_to_repository(app, name, source):
    """Links out of docs/ work in a checkout; the site has the repository."""
    source[0] = re.sub(r"\]\(\.\./", f"]({REPOSITORY}/blob/main/", source[0])


def prepare_docstring(app, what, name, obj, options, lines):
    """Let plain docstrings pass as reStructuredText."""
    # Equations and folders are indented blocks, above which it wants ``::``.
    text = "\n" + "\n".join(lines)
    block = r"(\n( *)\S.*(?<!::)\n)\n(?=\2 {4,}\S)"
    lines[:] = re.sub(block, r"\1\n\2::\n\n", text).split("\n")[1:]
    # In the first line of these, here an empty comment, napoleon takes what
    # precedes a colon for a type.
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Skip what a NamedTuple says of its own fields; the docstring says more."""
    return (obj.__doc__ or "").startswith("Alias for field number") or None


def setup(app):
    """Connect all; docstrings before napoleon, whose priority is 500."""
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)
    app.connect("autodoc-skip-member", skip_tuple_fields)
