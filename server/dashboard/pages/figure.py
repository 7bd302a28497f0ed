"""Plots of the report on a page: SVG that this program drew, in the page's own colours."""

import re

from nicegui import html, ui

from common.figures import for_page


def show_svg(svg: str, description: str) -> None:
    """Put a plot on the page.

    Args:
        svg: drawn by matplotlib, whose texts are outlines: a name in it is no markup. Only its
            comments hold names as text; they are left out.
        description: of what is seen, for those who do not.
    """
    drawn = re.sub(r"<!--.*?-->", "", for_page(svg), flags=re.DOTALL)
    with html.div(role="img", **{"aria-label": description}).classes("plot"):
        ui.html(drawn, sanitize=False)
