"""The monitor in Django's admin: who is connected, how much it holds; end that one.

The model has no table, so nothing here asks it for rows: the pages are made from the registry, a
bounded part of it at a time, and only look like the admin's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

import django
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model, logout
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from . import registry
from .conf import conf
from .exceptions import ListingNotSupported, SessionUnavailable
from .models import Session
from .monitor.chart import Chart
from .monitor.listing import OF_USER, listed
from .monitor.people import users_by_id, users_of
from .monitor.query import IDLE, REFRESH, Query
from .monitor.values import shown
from .monitor.words import agent, duration, moment
from .registry import LiveSession

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Session]
    MixedIn = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # not generic when it runs
    MixedIn = object

P = ParamSpec("P")
View = Callable[Concatenate["SessionAdmin", HttpRequest, P], HttpResponse]

TEMPLATES = "admin/django_header_sessions/session"
PLACE = "0" * 15
"""Stands for a session's id in an address."""
END = "end_selected"
REASON = "admin"
"""Why a session was ended, as ``session_ended`` says."""
MOST_SELECTED = 1000


def answering(view: View[P]) -> View[P]:
    """Answers for a store that cannot list its sessions, or cannot be reached."""

    @wraps(view)
    def answered(
        self: SessionAdmin, request: HttpRequest, *args: P.args, **kwargs: P.kwargs
    ) -> HttpResponse:
        try:
            return view(self, request, *args, **kwargs)
        except ListingNotSupported as error:
            return self._page(request, "cannot_list", _("Sessions"), reason=str(error))
        except SessionUnavailable as error:
            title = _("Sessions cannot be reached at the moment")
            response = self._page(request, "unavailable", title, reason=str(error), status=503)
            response.headers["Retry-After"] = str(conf.HEADER_SESSIONS_RETRY_AFTER)
            return response

    return cast("View[P]", answered)


@admin.register(Session)
class SessionAdmin(ModelAdmin):
    """The list of live sessions, one session, and ending them."""

    class Media:
        css = {"all": ("django_header_sessions/admin.css",)}  # noqa: RUF012  as Django names it
        js = ("django_header_sessions/admin.js",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        return False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Session | None:
        """What the history of a session goes by, ended or not."""
        found = Session(object_id)
        known = LogEntry.objects.filter(
            object_id=object_id, content_type=ContentType.objects.get_for_model(Session)
        )
        return found if registry.get(object_id) or known.exists() else None

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "user/<path:user>/end/",
            self.admin_site.admin_view(self.end_user_view),
            name=f"{self.opts.app_label}_{self.opts.model_name}_end_user",
        )
        return [own, *super().get_urls()]

    # The list.

    @answering
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        query = Query.read(request.GET)
        if query.leaked:
            self.message_user(
                request,
                _(
                    "That was a session key: whoever has it has the session, and it now lies in "
                    "the history of this browser and in logs. Only the session’s id was "
                    "searched for. You may want to end the session."
                ),
                messages.WARNING,
            )
            return HttpResponseRedirect(query.address())
        if query.wrong:
            text = _("Part of that address made no sense, and was left out.")
            self.message_user(request, text, messages.WARNING)
        figures = registry.overview()
        listing = listed(query, self.list_per_page)
        users = users_of([*listing.sessions, *([figures.oldest] if figures.oldest else [])])
        users |= users_by_id(set(listing.users) - set(users))
        health = registry.health()
        may_end = self.has_delete_permission(request)
        rows = self._rows(request, listing.sessions, users)
        context: dict[str, Any] = {
            "cl": _List(self.opts, query, rows),
            "listing": listing,
            "rows": rows,
            "searched": registry.SEARCHED,
            "of_user": OF_USER,
            "user_links": [
                self._user(request, one, users) | self._links(one) for one in listing.users
            ],
            "filters": _filters(query),
            "filtered": query.filtered,
            "clear": Query(text=query.text, user=query.user, refresh=query.refresh).address(),
            "everything": Query(refresh=query.refresh).address(),
            "newest": query.address() if query.place else "",
            "refresh_every": REFRESH,
            "toggle_refresh": query.address(
                refresh=not query.refresh, place=query.place, backward=query.backward
            ),
            "figures": figures,
            "kinds": _kinds(figures.counts),
            "chart": Chart(figures.activity),
            "health": health,
            "latency": f"{health.seconds * 1000:.2f}",
            "oldest": figures.oldest and self._row(request, figures.oldest, users),
            "may_end": may_end,
            "search_var": "q",
            "show_result_count": False,
            "actions_selection_counter": True,
            "selection_note": _("0 of %(cnt)s selected") % {"cnt": len(rows)},
            "action_form": _action_form() if may_end and rows else None,
            "tools": f"{TEMPLATES}/list_tools.html",
        }
        return self._page(
            request, "change_list", _("Live sessions"), **context, **(extra_context or {})
        )

    def _act(self, request: HttpRequest) -> HttpResponse:
        if not self.has_delete_permission(request):
            raise PermissionDenied
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)[:MOST_SELECTED]
        if request.POST.get("action") != END or not ids:
            text = _("Select sessions and an action. Nothing was ended.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        return self._confirmed(request, registry.get_many(ids), request.get_full_path())

    # One session.

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if object_id is None:
            raise PermissionDenied  # of adding one
        return self._session_view(request, unquote(object_id), extra_context or {})

    @answering
    def _session_view(
        self, request: HttpRequest, session_id: str, extra_context: dict[str, Any]
    ) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        found = registry.fields(session_id)
        if found is None:
            return self._gone(request)
        session, fields = found
        users = users_of([session])
        values = request.user.has_perm(f"{self.opts.app_label}.view_session_values")
        context: dict[str, Any] = {
            "row": self._row(request, session, users),
            "fields": shown(fields, request, values=values),
            "size": sum(field.size for field in fields),
            "may_see_values": values,
            "may_end": self.has_delete_permission(request),
            "object_id": session_id,
            "history": self._url("history", session_id),
            "of_user": session.user and self._links(session.user)["sessions"],
            "tools": f"{TEMPLATES}/session_tools.html",
            "here": session_id,
        }
        title = _("Session %(id)s") % {"id": session_id}
        return self._page(request, "change_form", title, **context, **extra_context)

    @answering
    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_delete_permission(request):
            raise PermissionDenied
        found = registry.get_many([unquote(object_id)])
        if not found:
            return self._gone(request)
        return self._confirmed(request, found, self._url("changelist"), single=True)

    @answering
    def end_user_view(self, request: HttpRequest, user: str) -> HttpResponse:
        """Ends all sessions of a user, when that was confirmed."""
        if not (
            self.has_delete_permission(request) and self.has_view_or_change_permission(request)
        ):
            raise PermissionDenied
        user = unquote(user)
        found = registry.of_user(user)
        if not found:
            self.message_user(request, _("That user has no live session."), messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        return self._confirmed(request, found, self._url("changelist"), user=user)

    def _gone(self, request: HttpRequest) -> HttpResponse:
        # Without what was asked for: it may have been a session key.
        text = _("There is no live session of that id. It was ended, or has expired.")
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self._url("changelist"))

    # Ending.

    def _confirmed(
        self,
        request: HttpRequest,
        sessions: Sequence[LiveSession],
        back: str,
        *,
        user: str | None = None,
        single: bool = False,
    ) -> HttpResponse:
        """Asks whether to end ``sessions``; ends them where the answer was yes."""
        own = getattr(request.session.session_key, "id", None)
        if request.method == "POST" and request.POST.get("post"):
            if user is not None:
                ended = registry.end_user(user, REASON)
            else:
                gone = set(registry.end_many([one.id for one in sessions], REASON))
                ended = [one for one in sessions if one.id in gone]
            self._log(request, ended)
            if any(one.id == own for one in ended):
                # This request's own: there is no session left to keep a message in.
                logout(request)
                return HttpResponseRedirect(
                    reverse("admin:index", current_app=self.admin_site.name)
                )
            text = ngettext(
                "%(count)d session was ended.", "%(count)d sessions were ended.", len(ended)
            )
            level = messages.SUCCESS if ended else messages.WARNING
            self.message_user(request, text % {"count": len(ended)}, level)
            return HttpResponseRedirect(back)
        users = users_of(sessions)
        rows = self._rows(request, sessions, users)
        if single:
            title = _("End session %(id)s?") % {"id": sessions[0].id}
        else:
            title = _("End these sessions?")
        return self._page(
            request,
            "end_confirmation",
            title,
            here=_("End"),
            rows=rows,
            own=any(one.id == own for one in sessions),
            action=END,
            action_checkbox_name=ACTION_CHECKBOX_NAME,
            back=back,
            of=self._user(request, user, users) if user is not None else None,
            at_most=OF_USER if user is not None and len(rows) >= OF_USER else 0,
        )

    def _log(self, request: HttpRequest, sessions: Iterable[LiveSession]) -> None:
        """Writes to the admin's log who ended which session of whom."""
        content_type = ContentType.objects.get_for_model(Session)
        users = users_of(sessions := list(sessions))
        entries = [
            LogEntry(
                user_id=cast("Any", request.user).pk,
                content_type_id=content_type.pk,
                object_id=one.id,
                object_repr=_named(one, users)[:200],
                action_flag=DELETION,
                change_message=_("Ended the session of %(user)s (%(transport)s transport).")
                % {"user": _whose(one, users), "transport": one.transport},
            )
            for one in sessions
        ]
        if len(entries) == 1:
            entries[0].save()  # with its signals, as Django does
        else:
            LogEntry.objects.bulk_create(entries, batch_size=500)

    # What the pages are made of.

    def _page(
        self, request: HttpRequest, name: str, title: str, *, status: int = 200, **context: Any
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"{TEMPLATES}/{name}.html",
            {
                **self.admin_site.each_context(request),
                "title": title,
                "subtitle": None,
                "opts": self.opts,
                "app_label": self.opts.app_label,
                "media": self.media,
                "since_6_1": django.VERSION >= (6, 1),
                "since_6_0": django.VERSION >= (6, 0),
                **context,
            },
            status=status,
        )

    def _row(
        self, request: HttpRequest, session: LiveSession, users: dict[str, Any]
    ) -> dict[str, Any]:
        """A session as the pages show it."""
        return self._rows(request, [session], users)[0]

    def _rows(
        self, request: HttpRequest, sessions: Iterable[LiveSession], users: dict[str, Any]
    ) -> list[dict[str, Any]]:
        # Each of a hundred rows has a few of these: what is the same in all is asked once.
        change, delete = self._url("change", PLACE), self._url("delete", PLACE)
        ago = _("%(time)s ago")
        known = {
            user_id: self._user(request, user_id, users)
            for user_id in {one.user for one in sessions if one.user is not None}
        }
        return [
            {
                "session": one,
                "url": change.replace(PLACE, one.id),
                "end_url": delete.replace(PLACE, one.id),
                "user": known.get(one.user) if one.user is not None else None,
                "agent": agent(one.user_agent),
                "created": moment(one.created),
                "age": ago % {"time": duration(one.age_ms)},
                "last_seen": moment(one.last_seen),
                "idle": ago % {"time": duration(one.idle_ms)},
                "expires": moment(one.expires),
                "expires_in": duration(one.expires_in),
                "deadline": one.deadline and moment(one.deadline),
                "size": filesizeformat(one.size or 0),
            }
            for one in sessions
        ]

    def _user(self, request: HttpRequest, user_id: str, users: dict[str, Any]) -> dict[str, Any]:
        """A user as the pages show them; there may be none of this primary key any more."""
        user = users.get(user_id)
        url = ""
        model: Any = get_user_model()
        if user is not None and self.admin_site.is_registered(model):
            try:
                options = model._meta
                if self.admin_site.get_model_admin(model).has_view_permission(request, user):
                    url = reverse(
                        f"admin:{options.app_label}_{options.model_name}_change",
                        args=(quote(user.pk),),
                        current_app=self.admin_site.name,
                    )
            except NoReverseMatch:
                pass  # a ModelAdmin with addresses of its own
        return {"name": user.get_username() if user is not None else "", "id": user_id, "url": url}

    def _links(self, user_id: str) -> dict[str, str]:
        """Where the sessions of a user are listed and ended."""
        return {
            "sessions": self._url("changelist") + Query(user=user_id).address(),
            "end_url": self._url("end_user", user_id),
        }

    def _url(self, name: str, *args: str) -> str:
        view = f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(view, args=[quote(each) for each in args], current_app=self.admin_site.name)


class SessionsOfUser(MixedIn):
    """Adds the user's live sessions to their page in the admin: mix it into the ``ModelAdmin``
    of the user model, before it."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return [*fields, "live_sessions"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not _may_view(request):
            return fieldsets
        return [*fieldsets, (_("Sessions"), {"fields": ["live_sessions"]})]

    @admin.display(description=gettext_lazy("live sessions"))
    def live_sessions(self, user: Any) -> str:
        user_id = user._meta.pk.value_to_string(user)
        try:
            count = len(registry.of_user(user_id))
        except ListingNotSupported:
            return _("The cache behind the sessions cannot list them.")
        except SessionUnavailable:
            return _("Sessions cannot be reached at the moment.")
        url = reverse(
            "admin:django_header_sessions_session_changelist", current_app=self.admin_site.name
        )
        text = ngettext("%(count)d session", "%(count)d sessions", count) % {"count": count}
        return format_html('<a href="{}">{}</a>', url + Query(user=user_id).address(), text)


class _List:
    """What Django's own search and action templates ask of a list."""

    search_fields = True
    search_help_text = format_lazy(
        gettext_lazy(
            "A user name or a whole session id finds exactly that. An IP, or the first 2 to 14 "
            "characters of a session id, is looked for among at most {most} sessions at a time."
        ),
        most=registry.SEARCHED,
    )

    def __init__(self, opts: Any, query: Query, rows: list[Any]) -> None:
        self.opts = opts
        self.query = query.text
        self.user = query.user
        self.turned = query.turned
        self.refresh = query.refresh
        self.result_list = rows
        self.result_count = len(rows)
        other = query.address(text="", user="")
        self.params = dict(part.split("=", 1) for part in other[1:].split("&") if part)


def _may_view(request: HttpRequest) -> bool:
    return request.user.has_perm("django_header_sessions.view_session")


def _whose(session: LiveSession, users: dict[str, Any]) -> str:
    if session.user is None:
        return _("nobody")
    user = users.get(session.user)
    return user.get_username() if user is not None else f"#{session.user}"


def _named(session: LiveSession, users: dict[str, Any]) -> str:
    if session.user is None:
        return _("%(id)s (anonymous)") % {"id": session.id}
    return _("%(id)s of %(user)s") % {"id": session.id, "user": _whose(session, users)}


def _kinds(counts: dict[registry.Kind, int]) -> list[dict[str, Any]]:
    rows = []
    for transport in ("header", "cookie"):
        signed_in = counts[registry.Kind(transport, True)]
        anonymous = counts[registry.Kind(transport, False)]
        rows.append(
            {
                "transport": transport,
                "signed_in": signed_in,
                "anonymous": anonymous,
                "all": signed_in + anonymous,
            }
        )
    return rows


def _filters(query: Query) -> list[dict[str, Any]]:
    """The filters of the sidebar, each with its choices, as the admin's filter template wants."""

    def choices(name: str, options: Iterable[tuple[Any, str]]) -> list[dict[str, Any]]:
        return [
            {
                "selected": getattr(query, name) == value,
                "query_string": query.address(**{name: value}),
                "display": text,
            }
            for value, text in options
        ]

    return [
        {
            "title": _("transport"),
            "choices": choices(
                "transport", [("", _("All")), ("header", _("Header")), ("cookie", _("Cookie"))]
            ),
        },
        {
            "title": _("user"),
            "choices": choices(
                "signed_in", [(None, _("All")), (True, _("Signed in")), (False, _("Anonymous"))]
            ),
        },
        {
            "title": _("idle time"),
            "choices": choices("idle", [(0, _("Any")), *((each, _longer(each)) for each in IDLE)]),
        },
    ]


def _longer(seconds: int) -> str:
    return _("Longer than %(time)s") % {"time": duration(seconds * 1000)}


def _action_form() -> ActionForm:
    form = ActionForm(auto_id=False)
    cast("Any", form.fields["action"]).choices = [("", "---------"), (END, _("End sessions"))]
    return form
