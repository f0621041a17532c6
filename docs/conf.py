"""Configuration of the documentation; nothing in it needs the network."""

import pkgutil
import re
from importlib import import_module
from importlib.resources import files

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import skqos

project = "skqos"
author = "The skqos developers"
copyright = author
version = release = skqos.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Pages are Markdown, so that a code host shows them, too.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# API pages: what each module lists in ``__all__``.
default_role = "obj"
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Choices and new users first.
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "backreferences_dir": "api/generated/backreferences",
    "doc_module": ("skqos",),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"skqos {release}"
# MathJax, its extensions and its glyphs in one file of a package: equations need no network.
MATHJAX = files("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg-full.js"
html_static_path = ["_static", str(MATHJAX)]
mathjax_path = MATHJAX.name
html_css_files = ["skqos.css"]
html_copy_source = False

MODULES = [skqos] + [
    import_module(f"skqos.{module.name}")
    for module in pkgutil.iter_modules(skqos.__path__)
    if not module.name.startswith("_")
]
PUBLIC = {
    name: f"{module.__name__}.{name}"
    for module in MODULES
    for name in getattr(module, "__all__", ())
}


class LinkPublicNames(SphinxTransform):
    """Link the names of public objects and of examples in the text of pages to their pages."""

    default_priority = 400

    def apply(self) -> None:
        """Wrap each into a reference, which needs no markup in the Markdown."""
        for literal in list(self.document.findall(nodes.literal)):
            link = _link_to(literal.astext())
            if link and not isinstance(literal.parent, nodes.reference | pending_xref):
                literal.replace_self(link)
                link += literal


def _link_to(text: str) -> pending_xref | None:
    if target := PUBLIC.get(text.removeprefix("skqos.")):
        return pending_xref("", refdomain="py", reftype="obj", reftarget=target, refwarn=True)
    if example := re.fullmatch(r"examples/(plot_\w+)\.py", text):
        target = f"/auto_examples/{example[1]}"
        return pending_xref(
            "", refdomain="std", reftype="doc", reftarget=target, refexplicit=True, refwarn=True
        )
    return None


def setup(app: Sphinx) -> None:
    """Register the transform."""
    app.add_transform(LinkPublicNames)
