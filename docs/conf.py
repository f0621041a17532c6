"""Configuration of the documentation; nothing in it needs the network."""

from importlib.metadata import version as version_of

project = "skqos"
author = "The skqos developers"
copyright = author  # noqa: A001  (Sphinx looks for this name)
version = release = version_of("skqos")

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
html_static_path = ["_static"]
html_css_files = ["skqos.css"]
html_copy_source = False
