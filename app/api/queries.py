"""What stands behind the `?` of a call: a parameter that the call does not have is refused, not overlooked.

Else `?stat=failed` would list everything, and whoever asked would take it for what has failed. So is one that is given
twice: no parameter of the native interface takes a list, and of two values neither would be the wanted one.
"""

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from app.errors import Unprocessable


async def check(request: Request) -> None:
    """What every call of the native interface asks, by the parameters that its own route declares.

    Raises:
        Unprocessable: with a pointer to each parameter that is unknown, or that is there more than once.
    """
    given = request.query_params
    if not given:
        return
    known = names(request.scope["route"])
    errors = [{"pointer": f"/query/{name}", "detail": "Unknown parameter"} for name in given if name not in known]
    if errors:
        expected = f"no query parameters but {', '.join(known)}" if known else "no query parameters, this call has none"
        found = ", ".join(name for name in given if name not in known)
        detail = f"expected {expected}; found {found[:200]}; leave it out, or correct its name"
        raise Unprocessable(detail, errors=errors)
    twice = [name for name in given if len(given.getlist(name)) > 1]
    if twice:
        errors = [{"pointer": f"/query/{name}", "detail": "Parameter is there more than once"} for name in twice]
        detail = f"expected each query parameter once; found more than one {', '.join(twice)}; leave one of them"
        raise Unprocessable(detail, errors=errors)


def names(route: APIRoute) -> list[str]:
    """The query parameters of a route and of all that it depends on, by name."""
    waiting, found = [route.dependant], []
    while waiting:
        one = waiting.pop()
        found += one.query_params
        waiting += one.dependencies
    # Fields of a model that several of them are declared by count one by one.
    return sorted({field.alias for field in get_flat_params(Dependant(query_params=found))})
