"""A Sphinx extension: formulas become MathML while the site is built, which browsers draw without any script."""

from docutils import nodes


def setup(app) -> dict:
    """Registers the renderer ``mathml``, for ``html_math_renderer``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator, node: nodes.math) -> None:
    _draw(translator, node, "inline")


def _block(translator, node: nodes.math_block) -> None:
    translator.body.append('<div class="math">')
    _draw(translator, node, "block")
    translator.body.append("</div>")


def _draw(translator, node: nodes.Element, display: str) -> None:
    from latex2mathml.converter import convert

    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode
