"""The room's HTML templates; every value is escaped, and a name that is missing is an error."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates() -> Environment:
    """Return a new environment of the templates, to which a page adds its own filters."""
    return Environment(
        loader=PackageLoader("client", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
