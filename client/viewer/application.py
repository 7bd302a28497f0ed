"""What the viewer answers: the page, the list, what is known of a case, and its volumes.

Addresses hold the numbers of cases, never names, and no part of an address becomes a path.
"""

import gzip
from collections.abc import Callable
from importlib import resources
from typing import TypeAlias

import numpy as np
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
from client.viewer.places import position_mm
from client.viewer.volumes import (
    difference,
    focus_of,
    image_file,
    marks_of,
    read_case_labels,
)
from common.errors import DataError

ASSETS = {  # by the name in the address: file, media type
    "niivue.js": ("niivue-0.69.0.umd.js.gz", "text/javascript"),
    "viewer.js": ("viewer.js", "text/javascript"),
    "viewer.css": ("viewer.css", "text/css"),
}
GZIP_LEVEL = 1  # labels shrink a hundredfold at every level

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
        route("/case/{number:int}/marks.nii", _marks),
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
    one, task = _listed(listing, request), listing.task
    labels = read_case_labels(one, task)
    return JSONResponse(
        {
            "number": request.path_params["number"],
            "html": words_on_case(listing, one, labels),
            "focus_mm": position_mm(labels.grid, focus_of(labels)),
            "voxel_of_mm": np.linalg.inv(labels.grid.affine)[:3].tolist(),
            "shape_zyx": labels.grid.shape_zyx,
            "is_compared": labels.reference is not None and labels.prediction is not None,
            "has_reference": labels.reference is not None,
            "has_prediction": labels.prediction is not None,
            "marks": [
                {
                    "reference": mark.reference,
                    "prediction": mark.prediction,
                    "is_border": mark.is_border,
                    "difference": difference(mark, None),
                    "difference_in": {
                        region: difference(mark, members)
                        for region, members in task.regions.items()
                    },
                }
                for mark in marks_of(labels).table
            ],
        }
    )


def _image(listing: Listing, request: Request) -> Response:
    channel, task = int(request.path_params["channel"]), listing.task
    if channel >= len(task.channels):
        raise HTTPException(404, f"expected a channel below {len(task.channels)}")
    content = image_file(_listed(listing, request), channel, task)
    return Response(content, media_type="application/octet-stream")  # no compression is faster


def _marks(listing: Listing, request: Request) -> Response:
    labels = read_case_labels(_listed(listing, request), listing.task)
    content = gzip.compress(
        encoded(marks_of(labels).volume, labels.grid, None, None), GZIP_LEVEL, mtime=0
    )
    headers = {"Content-Encoding": "gzip"}
    return Response(content, media_type="application/octet-stream", headers=headers)


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
