"""Who is calling, and whether the server is up."""

from django.http import HttpRequest, HttpResponse
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class Whoami(APIView):
    """Answer the name of the signed-in user; 401 for everybody else."""

    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        return Response({"user": request.user.get_username()})


def healthz(request: HttpRequest) -> HttpResponse:
    """Answer that this process serves; touches no session, so it does not speak for the store."""
    return HttpResponse("ok\n", content_type="text/plain")
