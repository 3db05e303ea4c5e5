"""OpenAPI, for projects that use drf-spectacular.

Loaded by the app where ``drf_spectacular`` is installed. The security scheme and the session
resource are then described of themselves. So that the project's own operations show what a header
session adds to their answers, list ``announce`` among the hooks::

    SPECTACULAR_SETTINGS = {
        "POSTPROCESSING_HOOKS": [
            "drf_spectacular.hooks.postprocess_schema_enums",
            "django_header_sessions.rest_framework.schema.announce",
        ],
    }
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerExtension,
    OpenApiViewExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from ..conf import conf
from ..keys import ID_LENGTH, KEY_LENGTH
from ..problems import CONTENT_TYPE
from ..resolvers import EXPIRES_IN_HEADER
from .serializers import (
    CredentialsSerializer,
    CurrentSessionSerializer,
    EndedSerializer,
    SessionSerializer,
)

Document = dict[str, Any]
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
SCHEME = "headerSession"
RETRY: Document = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
VIEWS = "django_header_sessions.rest_framework.views."


class HeaderSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = (
        "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
    )
    name = SCHEME
    match_subclasses = True

    def get_security_definition(self, auto_schema: AutoSchema) -> Document:
        return {
            "type": "apiKey",
            "in": "header",
            "name": conf.HEADER_SESSIONS_HEADER,
            "description": "The session key, as an answer announced it in this header; `new` to "
            "start without one.",
        }


def announced() -> Document:
    """The headers that a header session adds to any answer."""
    return {
        conf.HEADER_SESSIONS_HEADER: {
            "description": "There when the key is new: send it from now on. Empty: forget the key.",
            "schema": {"type": "string", "pattern": f"^([a-z0-9]{{{KEY_LENGTH}}})?$"},
        },
        EXPIRES_IN_HEADER: {
            "description": "Seconds until the session is over if it is not used again.",
            "schema": {"type": "integer", "minimum": 0},
        },
    }


def announce(result: Document, generator: Any, request: Any, public: Any) -> Document:
    """A postprocessing hook: each operation that a header session may sign in shows the headers
    of its answers."""
    for operations in result["paths"].values():
        for method, operation in operations.items():
            signs_in = method in METHODS and any(
                SCHEME in each for each in operation.get("security", ())
            )
            if signs_in:
                show_headers(operation)
    return result


def show_headers(operation: Document) -> None:
    for status, response in operation["responses"].items():
        later = RETRY if status in ("429", "503") else {}
        response["headers"] = announced() | later | response.get("headers", {})


class ProblemSerializer(serializers.Serializer[Any]):
    """A refusal (RFC 9457)."""

    type = serializers.CharField(
        help_text="What kind of refusal: `urn:django-header-sessions:…`, or `about:blank` where "
        "the status says it all."
    )
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(required=False, help_text="What to do about it.")
    executed = serializers.BooleanField(help_text="Whether anything may have been done.")
    # A member of the document, not the errors of this serializer.
    errors = serializers.DictField(  # type: ignore[assignment]
        required=False, help_text="What is wrong, by field."
    )


def call_it(name: str, serializer: type[Any]) -> None:
    """Name ``serializer`` in the schema, and not what derives from it."""

    class Named(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
        target_class = serializer

        def get_name(self, auto_schema: AutoSchema, direction: str) -> str:
            return name


# A project may have sessions and problems of its own, and OpenAPI knows no modules.
call_it("HeaderSession", SessionSerializer)
call_it("HeaderSessionCurrent", CurrentSessionSerializer)
call_it("HeaderSessionCredentials", CredentialsSerializer)
call_it("HeaderSessionsEnded", EndedSerializer)
call_it("HeaderSessionProblem", ProblemSerializer)

COMMON = {
    400: "The session header is malformed, or the request is not valid.",
    401: "There is no such session, or nobody is signed in with it.",
    403: "The CSRF check failed, or the request came over plain HTTP.",
    406: "No such format.",
    409: "This session key was replaced by a newer one.",
    503: "Sessions cannot be reached at the moment; the key stays good.",
}
NO_LIST = {501: "The cache behind the sessions cannot list them."}


def problems(own: dict[int, str] | None = None) -> Any:
    """The refusals of an operation: those of all, and its own."""
    return {
        status: OpenApiResponse(ProblemSerializer, description)
        for status, description in sorted((COMMON | (own or {})).items())
    }


def operation(method: str, **described: Any) -> Any:
    return extend_schema(methods=[method], tags=["sessions"], **described)


class Described(OpenApiViewExtension):  # type: ignore[no-untyped-call]
    """A view of the resource and its operations; those of ``empty`` methods need no body."""

    operations: tuple[Any, ...] = ()
    empty: tuple[str, ...] = ()

    def view_replacement(self) -> type[APIView]:
        empty = self.empty
        base: Any = api_settings.DEFAULT_SCHEMA_CLASS  # whatever the project has configured

        class Schema(base):  # type: ignore[misc]
            def get_operation(self, *args: Any) -> Document:
                document: Document = super().get_operation(*args)
                show_headers(document)
                for status, response in document["responses"].items():
                    if status >= "400":
                        response["content"] = {
                            CONTENT_TYPE: next(iter(response["content"].values()))
                        }
                if self.method in empty:
                    may_be_empty(document["requestBody"])
                return document

        view: Any = type(self.target.__name__, (self.target,), {"schema": Schema()})
        view.__doc__ = self.target.__doc__
        for each in self.operations:
            view = each(view)
        return view  # type: ignore[no-any-return]


def may_be_empty(body: Document) -> None:
    """Without a body, or with an empty object, an anonymous session is started. Shown for JSON
    alone: a form that holds nothing cannot be told from one that was not understood."""
    body.pop("required", None)
    json = {kind: each for kind, each in body["content"].items() if kind.endswith("json")}
    body["content"] = json or body["content"]
    for content in body["content"].values():
        nothing = {"type": "object", "maxProperties": 0}
        content["schema"] = {"anyOf": [content["schema"], nothing]}


class DescribedList(Described):  # type: ignore[no-untyped-call]
    target_class = VIEWS + "SessionList"

    operations = (
        operation(
            "GET",
            summary="List your sessions",
            description="Your live sessions, newest first.",
            filters=True,  # for the number of the page
            responses={200: SessionSerializer(many=True)}
            | problems({404: "There is no such page."} | NO_LIST),
        ),
        operation(
            "POST",
            summary="Start a session, sign in",
            description="Without a body the session is anonymous. The key is announced in the "
            "answer's header. A session that is there already is signed in, and gets a new "
            "key; without credentials it stays as it is, which is answered with 200.",
            responses={
                200: OpenApiResponse(SessionSerializer, "There was a session already."),
                201: SessionSerializer,
            }
            | problems(
                {
                    401: "The credentials are wrong, or there is no such session.",
                    413: "What the session holds would become too large.",
                    415: "The body is in no format that is understood.",
                    429: "There were too many attempts to sign in.",
                    503: "Sessions, or the count of attempts to sign in, cannot be reached.",
                }
            ),
            auth=[{}, {SCHEME: []}],
        ),
    )
    empty = ("POST",)


class DescribedCurrent(Described):  # type: ignore[no-untyped-call]
    target_class = VIEWS + "SessionCurrent"

    operations = (
        operation(
            "GET",
            summary="See the current session",
            parameters=[
                OpenApiParameter(
                    "values",
                    str,
                    enum=["true", "false"],
                    description="`true` shows the values of its fields, too.",
                )
            ],
            responses={200: CurrentSessionSerializer} | problems(),
        ),
        operation(
            "DELETE",
            summary="Sign out",
            description="Ends the current session.",
            responses={204: None} | problems(),
        ),
    )


class DescribedRotate(Described):  # type: ignore[no-untyped-call]
    target_class = VIEWS + "SessionRotate"

    operations = (
        operation(
            "POST",
            summary="Get a new key",
            description="The same session, under the key in the answer's header. The old key "
            "is dead.",
            request=None,
            responses={200: SessionSerializer} | problems(),
        ),
    )


class DescribedEndOthers(Described):  # type: ignore[no-untyped-call]
    target_class = VIEWS + "SessionEndOthers"

    operations = (
        operation(
            "POST",
            summary="End all your other sessions",
            request=None,
            responses={200: EndedSerializer} | problems(NO_LIST),
        ),
    )


class DescribedDetail(Described):  # type: ignore[no-untyped-call]
    target_class = VIEWS + "SessionDetail"

    operations = (
        operation(
            "DELETE",
            summary="End one of your sessions",
            parameters=[
                OpenApiParameter(
                    "session_id",
                    str,
                    OpenApiParameter.PATH,
                    pattern=f"^[a-z0-9]{{{ID_LENGTH}}}$",
                )
            ],
            responses={204: None} | problems({404: "You have no such session."}),
        ),
    )
