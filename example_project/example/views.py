"""Who is calling, and whether the server is up."""

from django.http import HttpRequest, HttpResponse, JsonResponse

from example.api import api
from example.sessions import unauthorized


@api("GET", "HEAD")
def whoami(request: HttpRequest) -> HttpResponse:
    """Answer the name of the signed-in user; 401 for everybody else."""
    if not request.user.is_authenticated:
        raise unauthorized("not-signed-in", "Sign in with POST /api/sessions/ first.")
    return JsonResponse({"user": request.user.get_username()})


def healthz(request: HttpRequest) -> HttpResponse:
    """Answer that this process serves; touches no session, so it does not speak for the store."""
    return HttpResponse("ok\n", content_type="text/plain")
