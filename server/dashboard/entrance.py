"""The page that asks for the token; it needs no script."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 24rem; padding: 0 1rem;
  background: #fff; color: #1b1e24; }
input, button { box-sizing: border-box; font: inherit; width: 100%; padding: .5rem; margin: .3rem 0;
  color: inherit; background: transparent; border: 1px solid #767b85; border-radius: 4px; }
button { background: #0072B2; border-color: #0072B2; color: #fff; }
p[role=alert] { border-left: 4px solid #D55E00; padding-left: .7rem; }
@media (prefers-color-scheme: dark) { body { background: #14171c; color: #e8eaee; } }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Consilium dashboard: access</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style></head>
<body><main><h1>Consilium dashboard</h1>{wrong}
<form method="post" action="/access"><label for="token">Token, as it stands in the coordinator's
token file</label><input id="token" name="token" type="password" autocomplete="current-password"
required autofocus><button type="submit">Open the dashboard</button></form></main></body></html>
"""


def entrance_page(*, wrong: bool = False) -> str:
    """Return the page as HTML; `wrong` after a token that did not fit."""
    said = '<p role="alert">That is not the token. Please try again.</p>' if wrong else ""
    return PAGE.format(style=STYLE, wrong=said)
