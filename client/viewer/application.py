"""What the viewer answers: the page, the list, what is known of a case, and its volumes.

Addresses hold the numbers of cases, never names, and no part of an address becomes a path.
"""

import gzip
from collections.abc import Callable
from importlib import resources
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from client.dataset.nifti import encoded
from client.viewer.guard import guarded
from client.viewer.listing import ListedCase, Listing
from client.viewer.pages import list_of_cases, page, words_on_case
from client.viewer.volumes import (
    Labels,
    disagreement_of,
    focus_of,
    image_file,
    outline_of,
    read_case_labels,
)
from common.axes import LabelMap
from common.errors import DataError

ASSETS = {  # by the name in the address: file, media type
    "niivue.js": ("niivue-0.69.0.umd.js.gz", "text/javascript"),
    "viewer.js": ("viewer.js", "text/javascript"),
    "viewer.css": ("viewer.css", "text/css"),
}
GZIP_LEVEL = 1  # label maps shrink a hundredfold at every level

Answer: TypeAlias = Callable[[Listing, Request], Response]


def application(listing: Listing, token: str) -> ASGIApp:
    """Return the viewer of a listing.

    Args:
        listing: what is shown.
        token: the secret that every address begins with.
    """

    def route(path: str, answer: Answer) -> Route:
        return Route(path, lambda request: answer(listing, request), methods=["GET"])

    routes = [
        route("/", lambda found, _: HTMLResponse(page(found))),
        route("/list", _list),
        Route("/assets/{name}", _asset, methods=["GET"]),
        route("/case/{number:int}", _case),
        route("/case/{number:int}/image/{channel:int}.nii", _image),
        route("/case/{number:int}/{kind}.nii", _labels),
    ]
    app = Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        exception_handlers={DataError: lambda _, error: PlainTextResponse(_in_words(error), 422)},
    )
    return guarded(app, token)


def _list(listing: Listing, request: Request) -> Response:
    metric = request.query_params.get("metric", "dice")
    return HTMLResponse(list_of_cases(listing, metric, _region(listing, request)))


def _case(listing: Listing, request: Request) -> Response:
    one = _listed(listing, request)
    labels = read_case_labels(one, listing.task)
    return JSONResponse(
        {
            "html": words_on_case(listing, one, labels),
            "focus_mm": labels.grid.position_mm(focus_of(labels)),
            "shape_zyx": labels.grid.shape_zyx,
            "reference": labels.reference is not None,
            "prediction": labels.prediction is not None,
        }
    )


def _image(listing: Listing, request: Request) -> Response:
    channel, n_channels = int(request.path_params["channel"]), len(listing.task.channels)
    if channel >= n_channels:
        raise HTTPException(404, f"expected a channel below {n_channels}")
    content = image_file(_listed(listing, request), channel, n_channels)
    return Response(content, media_type="application/octet-stream")  # no compression is faster


def _labels(listing: Listing, request: Request) -> Response:
    labels = read_case_labels(_listed(listing, request), listing.task)
    region = _region(listing, request)
    members = listing.task.regions[region] if region else None
    volume = _volume(labels, request.path_params["kind"], members)
    if volume is None:
        raise HTTPException(404, "expected label files of this case that can be used")
    content = gzip.compress(encoded(volume, labels.grid), GZIP_LEVEL, mtime=0)
    headers = {"Content-Encoding": "gzip"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _volume(labels: Labels, kind: str, members: tuple[int, ...] | None) -> LabelMap | None:
    """Return the volume of an address, or None where there is none."""
    reference, prediction = labels.reference, labels.prediction
    if kind == "outline" and reference is not None:
        return outline_of(reference, labels.grid.spacing_mm)
    if kind == "disagreement" and reference is not None and prediction is not None:
        return disagreement_of(reference, prediction, members)
    return {"reference": reference, "prediction": prediction}.get(kind)


def _asset(request: Request) -> Response:
    if request.path_params["name"] not in ASSETS:
        raise HTTPException(404, "no such file")
    name, media_type = ASSETS[request.path_params["name"]]
    content = (resources.files("client.viewer") / "assets" / name).read_bytes()
    headers = {"Content-Encoding": "gzip"} if name.endswith(".gz") else None
    return Response(content, media_type=media_type, headers=headers)


def _listed(listing: Listing, request: Request) -> ListedCase:
    number = int(request.path_params["number"])
    if number >= len(listing.cases):
        raise HTTPException(404, f"expected a case below {len(listing.cases)}")
    return listing.cases[number]


def _region(listing: Listing, request: Request) -> str | None:
    region = request.query_params.get("region") or None
    if region is not None and region not in listing.task.regions:
        raise HTTPException(404, f"expected a region of task {listing.task.name}")
    return region


def _in_words(error: Exception) -> str:
    """Return which file cannot be used, for the person at the site."""
    defects = error.defects if isinstance(error, DataError) else ()
    return "; ".join(map(str, defects)) or str(error)
