"""The documentation's site: `make docs`. Sphinx, for it is well kept and reads both our Markdown and our docstrings."""

from importlib.metadata import version as version_of

import django
from django.conf import settings
from docutils import nodes
from pygments.lexers.special import TextLexer

project = "flashsale"
author = "The flashsale authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx' name
release = version = version_of("flashsale")

settings.configure(INSTALLED_APPS=["flashsale.contrib.django"])  # else its models cannot be imported
django.setup()

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "flashsale"
html_show_sourcelink = False
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_use_ivar = True
nitpicky = False
suppress_warnings = ["myst.header"]

# Pages of the repository that stand outside of docs/: the site shows them under these names.
OUTSIDE = {
    "../README.md": "readme.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../examples/README.md": "examples.md",
    "../examples/own_tables/README.md": "own-shops.md",
}


def _links(app, name, source) -> None:
    """Leads links to pages outside of docs/ to where the site has them."""
    for path, page in OUTSIDE.items():
        source[0] = source[0].replace(f"]({path}", f"]({page}")


def _included_links(app, path, docname, source) -> None:
    """The same, for the pages that are included."""
    text = source[0].replace("](docs/", "](").replace("](../docs/", "](").replace("](../../docs/", "](")
    for outside, page in OUTSIDE.items():
        name = outside.removeprefix("../")
        for link in (outside, name, name.removeprefix("examples/")):  # as docs/, the root and examples/ write it
            text = text.replace(f"]({link}", f"]({page}")
    source[0] = text


def _blocks(app, doctree) -> None:
    """A block that a page sets up invisibly stays invisible."""
    for comment in list(doctree.findall(nodes.comment)):
        comment.parent.remove(comment)


def setup(app) -> None:
    app.add_lexer("mermaid", TextLexer)  # drawn where the page is read on its own
    app.connect("source-read", _links)
    app.connect("include-read", _included_links)
    app.connect("doctree-read", _blocks)
