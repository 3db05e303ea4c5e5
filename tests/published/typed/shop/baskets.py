"""A view by class of which one request of a session runs at a time."""

from django.http import HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from django_header_sessions.decorators import readonly_session, serialized_session
from django_header_sessions.http import HttpRequest


@method_decorator(serialized_session(wait=3), name="dispatch")
class Basket(View):
    def post(self, request: HttpRequest) -> HttpResponse:
        request.session["basket"] = request.POST["item"]
        return HttpResponse("bought")

    @method_decorator(readonly_session)
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("nothing")
