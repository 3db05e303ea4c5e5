"""The monitor in Django's admin: who is connected, how much it holds; end that one.

The model has no table, so nothing here asks it for rows: the pages are made from the registry, a
bounded part of it at a time, and only look like the admin's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

import django
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model, logout
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import connections, router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from . import registry
from .conf import conf
from .exceptions import ListingNotSupported, SessionUnavailable
from .keys import is_id
from .models import Session
from .monitor.chart import Chart
from .monitor.listing import listed
from .monitor.people import users_by_id, users_of
from .monitor.query import IDLE, REFRESH, Query
from .monitor.values import shown
from .monitor.words import agent, duration, moment, timestamp, transport_name
from .registry import LiveSession

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Session]
    MixedIn = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # not generic when it runs
    MixedIn = object

P = ParamSpec("P")
View = Callable[Concatenate["SessionAdmin", HttpRequest, P], HttpResponse]

PLACE = "0" * 15
"""Stands for a session's id in an address, behind which nothing like it stands."""
END = "end_selected"
REASON = "admin"
"""Why a session was ended, as ``session_ended`` says."""
BATCH = 200
"""Sessions that are ended, and written down, at once."""
AT_ONCE = 1000
"""Sessions of a user that one request ends; the page that answers it goes on with the rest."""
LISTED = 20
"""Sessions that a page which asks whether to end them lists at the most."""


def template(name: str) -> str:
    return f"admin/django_header_sessions/session/{name}.html"


class Interrupted(SessionUnavailable):
    """The store went away when so many sessions had been ended."""

    def __init__(self, why: str, ended: int) -> None:
        super().__init__(why)
        self.ended = ended


def page_for(*permissions: str) -> Callable[[View[P]], View[P]]:
    """A page for those who have all of these permissions; answers for a store that cannot list its
    sessions, or cannot be reached."""

    def wrap(view: View[P]) -> View[P]:
        @wraps(view)
        def answered(
            self: SessionAdmin, request: HttpRequest, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponse:
            if not all(getattr(self, f"has_{one}_permission")(request) for one in permissions):
                raise PermissionDenied
            try:
                return view(self, request, *args, **kwargs)
            except ListingNotSupported:
                alias = {"alias": settings.SESSION_CACHE_ALIAS}
                return self._page(request, template("cannot_list"), _("Sessions"), alias)
            except SessionUnavailable as error:
                context: dict[str, Any] = {
                    "reason": str(error),
                    "outages": [
                        {"server": one.server, "since": moment(one.since)}
                        for one in registry.outages()
                    ],
                    "ended": getattr(error, "ended", 0),
                }
                title = _("Sessions cannot be reached at the moment")
                response = self._page(request, template("unavailable"), title, context)
                response.status_code = 503
                response.headers["Retry-After"] = str(conf.HEADER_SESSIONS_RETRY_AFTER)
                return response

        return cast("View[P]", answered)

    return wrap


@admin.register(Session)
class SessionAdmin(ModelAdmin):
    """The list of live sessions, one session, and ending them."""

    class Media:
        css = {"all": ("django_header_sessions/admin.css",)}  # noqa: RUF012  as Django names it
        js = ("admin/js/cancel.js", "django_header_sessions/admin.js")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        return False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Session | None:
        """What the history of a session goes by, ended or not."""
        if not is_id(object_id):
            return None
        known = LogEntry.objects.filter(
            object_id=object_id, content_type=ContentType.objects.get_for_model(Session)
        )
        return Session(object_id) if known.exists() or registry.get(object_id) else None

    def get_urls(self) -> list[URLPattern]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path(address, self.admin_site.admin_view(view), name=f"{prefix}_{name}")
            for address, view, name in (
                ("user/<path:user>/end/", self.end_user_view, "end_user"),
                ("<path:object_id>/end-context/", self.end_context_view, "end_context"),
            )
        ]
        return [*own, *super().get_urls()]

    # The list.

    @page_for("view_or_change")
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
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
        oldest = [figures.oldest] if figures.oldest else []
        users = users_of([*listing.sessions, *oldest])
        users |= users_by_id(set(listing.users) - set(users))
        health = registry.health()
        may_end = self.has_delete_permission(request)
        rows = self._rows(request, listing.sessions, users)
        context: dict[str, Any] = {
            "cl": self._list(query, rows),
            "query": query,
            "listing": listing,
            "rows": rows,
            "searched": registry.SEARCHED,
            "users": [
                {"name": self._user(request, one, users), "end_url": self._url("end_user", one)}
                for one in listing.users
            ],
            "most": registry.OF_USERS,
            "everything": Query(refresh=query.refresh).address(),
            "newest": query.address() if query.place else "",
            "refresh_every": REFRESH,
            "toggle_refresh": query.address(
                refresh=not query.refresh, place=query.place, backward=query.backward
            ),
            "figures": figures,
            "kinds": _kinds(figures.counts),
            "chart": Chart(figures.activity),
            "breakers": len(health.outages),
            "latency": f"{health.seconds * 1000:.2f}",
            "oldest": next(iter(self._rows(request, oldest, users)), None),
            "may_end": may_end,
            "actions_on_top": True,
            "actions_selection_counter": True,
            "selection_note": _("0 of %(cnt)s selected") % {"cnt": len(rows)},
            "action_form": _action_form() if may_end else None,
        }
        context |= extra_context or {}
        page = self.change_list_template or template("change_list")
        return self._page(request, page, _("Live sessions"), context)

    def _act(self, request: HttpRequest) -> HttpResponse:
        if not self.has_delete_permission(request):
            raise PermissionDenied
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if request.POST.get("action") != END or not ids:
            text = _("Select sessions and an action. Nothing was ended.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        found = registry.get_many(dict.fromkeys(ids))
        if request.POST.get("post"):
            return self._ended(request, self._end(request, found), request.get_full_path())
        return self._ask(
            request,
            self.delete_selected_confirmation_template or template("end_confirmation"),
            _("End these sessions?"),
            found,
            request.get_full_path(),
            {"action": END, "action_checkbox_name": ACTION_CHECKBOX_NAME},
        )

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

    @page_for("view_or_change")
    def _session_view(
        self, request: HttpRequest, session_id: str, extra_context: dict[str, Any]
    ) -> HttpResponse:
        found = registry.fields(session_id)
        if found is None:
            return self._gone(request)
        session, fields = found
        contexts = registry.contexts(session_id)
        values = request.user.has_perm(f"{self.opts.app_label}.view_session_values")
        (row,) = self._rows(request, [session], users_of([session]))
        context: dict[str, Any] = {
            "row": row,
            "created": moment(session.created),
            "last_seen": moment(session.last_seen),
            "expires": moment(session.expires),
            "deadline": session.deadline and moment(session.deadline),
            "fields": shown(fields, request, values=values),
            "size": sum(field.size for field in fields),
            "may_see_values": values,
            "contexts": [
                {
                    "name": one.name,
                    "size": one.size,
                    "expires_in": duration(one.expires_in),
                    "end_url": self._end_context_url(session_id, one.name),
                }
                for one in contexts
            ],
            "contexts_size": sum(one.size for one in contexts),
            "may_end": self.has_delete_permission(request),
            "history": self._url("history", session_id),
            "of_user": session.user and self._sessions_of(session.user),
            "original": session_id,
        }
        title = _("Session %(id)s") % {"id": session_id}
        page = self.change_form_template or template("change_form")
        return self._page(request, page, title, context | extra_context)

    @page_for("view_or_change")
    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if self.get_object(request, unquote(object_id)) is None:
            return self._gone(request)
        return super().history_view(request, object_id, extra_context)

    @page_for("delete")
    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = registry.get_many([unquote(object_id)])
        if not found:
            return self._gone(request)
        if request.method == "POST" and request.POST.get("post"):
            return self._ended(request, self._end(request, found), self._back(request))
        return self._ask(
            request,
            self.delete_confirmation_template or template("end_confirmation"),
            _("End session %(id)s?") % {"id": found[0].id},
            found,
            self._back(request),
            extra_context or {},
        )

    @page_for("view_or_change", "delete")
    def end_context_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ends one context of a session, when that was confirmed."""
        found = registry.get_many([unquote(object_id)])
        if not found:
            return self._gone(request)
        (session,) = found
        # Not a part of the address before it: a name may be two dots.
        name = request.GET.get("name", "")
        back = self._url("change", session.id)
        confirmed = request.method == "POST" and request.POST.get("post")
        if confirmed and self._end_logged(request, found, name):
            self.message_user(request, _("The context was ended."), messages.SUCCESS)
            return HttpResponseRedirect(back)
        named = (one for one in registry.contexts(session.id) if one.name == name)
        context = next(named, None)
        if confirmed or context is None:
            text = _("There is no such context in this session. It was ended, or has expired.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(back)
        title = _("End this context?")
        about = {"context": context}
        return self._ask(request, template("end_context"), title, found, back, about)

    @page_for("view_or_change", "delete")
    def end_user_view(self, request: HttpRequest, user: str) -> HttpResponse:
        """Ends all sessions of a user, when that was confirmed: ``AT_ONCE``, and a page that shows
        how far it is and asks for the next."""
        user = unquote(user)
        if request.method == "POST" and request.POST.get("post"):
            return self._end_user(request, user)
        page = registry.page(LISTED, users=[user])
        found, count = page.sessions, page.total or 0
        if not found:
            self.message_user(request, _("That user has no live session."), messages.WARNING)
            return HttpResponseRedirect(self._back(request))
        context = {
            "of": self._user(request, user, users_by_id([user])),
            "count": count,
            "more": max(count - len(found), 0),
            "at_least": count >= registry.OF_USERS,
        }
        return self._ask(
            request,
            template("end_confirmation"),
            _("End all sessions of this user?"),
            found,
            self._back(request),
            context,
        )

    def _end_user(self, request: HttpRequest, user: str) -> HttpResponse:
        before = request.POST.get("ended", "")
        done = int(before) if before.isdecimal() and len(before) < 10 else 0
        found = registry.of_user(user)[:AT_ONCE]
        own = [one for one in found if one.id == _own_id(request)]
        # This request's own comes last: the next request would not be let in.
        ended = self._end(request, [one for one in found if one not in own], done)
        left = registry.count_of_users([user], registry.OF_USERS)
        if ended and left > len(own):
            context = {
                "of": self._user(request, user, users_by_id([user])),
                "ended": done + len(ended),
                "left": left,
                "at_least": left >= registry.OF_USERS,
                "original": _("End"),
            }
            return self._page(request, template("end_progress"), _("Ending sessions"), context)
        ended += self._end(request, own, done + len(ended))
        if not ended and not done:
            self.message_user(request, _("That user has no live session."), messages.WARNING)
            return HttpResponseRedirect(self._back(request))
        return self._ended(request, ended, self._back(request), done)

    def _gone(self, request: HttpRequest) -> HttpResponse:
        # Without what was asked for: it may have been a session key.
        text = _("There is no live session of that id. It was ended, or has expired.")
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self._back(request))

    def _back(self, request: HttpRequest) -> str:
        """The list, or for those who may not see it the index, as in Django's own pages."""
        if self.has_view_permission(request):
            return self._url("changelist")
        return reverse("admin:index", current_app=self.admin_site.name)

    # Ending.

    def _ask(
        self,
        request: HttpRequest,
        template: Any,
        title: str,
        sessions: Sequence[LiveSession],
        back: str,
        context: dict[str, Any],
    ) -> HttpResponse:
        """Asks whether to end ``sessions``, or ``context["count"]`` of which these are shown."""
        may_view = self.has_view_permission(request)
        own = {
            "rows": self._rows(request, sessions, users_of(sessions) if may_view else {}),
            "count": len(sessions),
            "own": any(one.id == _own_id(request) for one in sessions),
            "back": back,
            "original": _("End"),
        }
        return self._page(request, template, title, own | context)

    def _end(
        self, request: HttpRequest, sessions: Sequence[LiveSession], before: int = 0
    ) -> list[LiveSession]:
        """Ends ``sessions``; those that there were. ``before`` it, that many were ended already."""
        # This request's own comes last: it writes down the others.
        order = sorted(sessions, key=lambda one: one.id == _own_id(request))
        done: list[LiveSession] = []
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            try:
                done += self._end_logged(request, some)
            except SessionUnavailable as error:
                raise Interrupted(str(error), before + len(done)) from error
        return done

    def _end_logged(
        self, request: HttpRequest, some: list[LiveSession], context: str | None = None
    ) -> list[LiveSession]:
        """Ends ``some``, or a context of the one that they are, and writes to the admin's log who
        ended which session of whom; those that there were.

        What cannot be written down is not ended, and what may have been ended is written down: so
        the log comes first, and is mended. Not in one transaction with the ending, in which
        receivers of ``session_ended`` are called: a query of theirs that fails would undo it.
        """
        entries = self._log(request, some, context)
        try:
            if context is None:
                gone = set(registry.end_many([one.id for one in some], REASON))
            else:
                gone = {one.id for one in some if registry.end_context(one.id, context)}
        except Exception:
            told = _told(some, users_of(some), context, tried=True)
            for entry, tried in zip(entries, told, strict=True):
                entry.change_message = tried
            LogEntry.objects.bulk_update(entries, ["change_message"])
            raise
        wrong = [entry.pk for entry in entries if entry.object_id not in gone]
        if wrong:
            LogEntry.objects.filter(pk__in=wrong).delete()
        return [one for one in some if one.id in gone]

    def _ended(
        self, request: HttpRequest, ended: Sequence[LiveSession], back: str, before: int = 0
    ) -> HttpResponse:
        """Says how many were ended, with those that an earlier request ended."""
        if any(one.id == _own_id(request) for one in ended):
            # This request's own: there is no session left to keep a message in.
            logout(request)
            return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))
        count = before + len(ended)
        text = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", count)
        level = messages.SUCCESS if count else messages.WARNING
        self.message_user(request, text % {"count": count}, level)
        return HttpResponseRedirect(back)

    def _log(
        self,
        request: HttpRequest,
        sessions: Sequence[LiveSession],
        context: str | None,
    ) -> list[LogEntry]:
        content_type = ContentType.objects.get_for_model(Session)
        users = users_of(sessions)
        entries = [
            LogEntry(
                user_id=cast("Any", request.user).pk,
                content_type_id=content_type.pk,
                object_id=one.id,
                object_repr=_named(one, users)[:200],
                action_flag=DELETION if context is None else CHANGE,
                change_message=text,
            )
            for one, text in zip(sessions, _told(sessions, users, context), strict=True)
        ]
        using = router.db_for_write(LogEntry)
        with transaction.atomic(using=using):
            if len(entries) > 1 and connections[using].features.can_return_rows_from_bulk_insert:
                LogEntry.objects.bulk_create(entries)
            else:
                # With its signals, as Django does; and on MySQL, which does not tell their keys.
                for entry in entries:
                    entry.save()
        return entries

    # What the pages are made of.

    def _page(
        self,
        request: HttpRequest,
        template: Any,
        title: str,
        context: dict[str, Any],
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        own = {
            **self.admin_site.each_context(request),
            "title": title,
            "original": title,
            "opts": self.opts,
            "app_label": self.opts.app_label,
            "media": self.media,
            "has_view_permission": self.has_view_permission(request),
            "since_6_1": django.VERSION >= (6, 1),
        }
        return TemplateResponse(request, template, own | context)

    def _rows(
        self, request: HttpRequest, sessions: Iterable[LiveSession], users: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """These sessions as the pages show them."""
        # Each of a hundred rows has a few of these: what is the same in all is asked once.
        change = self._url("change", PLACE).rpartition(PLACE)
        delete = self._url("delete", PLACE).rpartition(PLACE)
        ago = _("%(time)s ago")
        names = {user: self._user(request, user, users) for user in {one.user for one in sessions}}
        return [
            {
                "session": one,
                "url": one.id.join((change[0], change[2])),
                "end_url": one.id.join((delete[0], delete[2])),
                "user": names[one.user],
                "transport": transport_name(one.transport),
                "agent": agent(one.user_agent),
                "created": timestamp(one.created),
                "age": ago % {"time": duration(one.age_ms)},
                "last_seen": timestamp(one.last_seen),
                "idle": ago % {"time": duration(one.idle_ms)},
                "expires": timestamp(one.expires),
                "expires_in": duration(one.expires_in),
                "size": filesizeformat(one.size or 0),
                "fields": ngettext("%(count)d field", "%(count)d fields", one.fields or 0)
                % {"count": one.fields or 0},
            }
            for one in sessions
        ]

    def _list(self, query: Query, rows: list[dict[str, Any]]) -> SimpleNamespace:
        """What Django's own templates ask of a list."""
        note = _(
            "A user name or a whole session id finds exactly that. An IP, or the first 2 to 14 "
            "characters of a session id, is looked for among at most {most} sessions at a time."
        )
        return SimpleNamespace(
            opts=self.opts,
            search_fields=True,
            search_help_text=note.format(most=registry.SEARCHED),
            query=query.text,
            params=query.parameters(text="", user=""),
            result_list=rows,
            result_count=len(rows),
            full_result_count=len(rows),
            has_filters=True,
            filter_specs=_filters(query),
            has_active_filters=query.filtered,
            clear_all_filters_qs=Query(query.text, query.user, refresh=query.refresh).address(),
        )

    def _user(self, request: HttpRequest, user_id: str | None, users: dict[str, Any]) -> SafeString:
        """A user as the pages show them; there may be none of this primary key any more."""
        if user_id is None:
            return format_html('<span class="quiet">{}</span>', _("anonymous"))
        user = users.get(user_id)
        if user is None:
            text = _("#%(id)s (no such user)") % {"id": user_id}
            return format_html('<span class="quiet">{}</span>', text)
        model: Any = get_user_model()
        name = user.get_username()
        if self.admin_site.is_registered(model):
            options = model._meta
            try:
                if self.admin_site.get_model_admin(model).has_view_permission(request, user):
                    url = reverse(
                        f"admin:{options.app_label}_{options.model_name}_change",
                        args=(quote(user.pk),),
                        current_app=self.admin_site.name,
                    )
                    return format_html('<a href="{}">{}</a>', url, name)
            except NoReverseMatch:
                pass  # a ModelAdmin with addresses of its own
        return format_html("{}", name)

    def _sessions_of(self, user_id: str) -> str:
        return self._url("changelist") + Query(user=user_id).address()

    def _end_context_url(self, session_id: str, name: str) -> str:
        return f"{self._url('end_context', session_id)}?{urlencode({'name': name})}"

    def _url(self, name: str, *args: str) -> str:
        view = f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(view, args=[quote(each) for each in args], current_app=self.admin_site.name)


class SessionsOfUser(MixedIn):
    """Adds the user's live sessions to their page in the admin: mix it into the ``ModelAdmin``
    of the user model, before it. Those who may not view sessions get the page as it was."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return [*fields, "live_sessions"] if self._shows_sessions(request, obj) else fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        # A ModelAdmin that names no fields shows all that are read-only.
        fieldsets = [
            (title, {**options, "fields": [*_without(options["fields"], "live_sessions")]})
            for title, options in super().get_fieldsets(request, obj)
        ]
        if self._shows_sessions(request, obj):
            fieldsets.append((_("Sessions"), {"fields": ["live_sessions"]}))
        return fieldsets

    def _shows_sessions(self, request: HttpRequest, user: Any) -> bool:
        if user is None:
            return False
        if self.admin_site.is_registered(Session):
            return self.admin_site.get_model_admin(Session).has_view_permission(request)
        return request.user.has_perm("django_header_sessions.view_session")

    @admin.display(description=gettext_lazy("live sessions"))
    def live_sessions(self, user: Any) -> str:
        user_id = registry.user_key(user)
        try:
            count = registry.count_of_users([user_id], registry.MOST)
        except ListingNotSupported:
            return _("The cache behind the sessions cannot list them.")
        except SessionUnavailable:
            return _("Sessions cannot be reached at the moment.")
        text = ngettext("%(count)d session", "%(count)d sessions", count) % {"count": count}
        if count >= registry.MOST:
            text = _("%(count)d sessions or more") % {"count": count}
        if not self.admin_site.is_registered(Session):
            return text
        url = reverse(
            "admin:django_header_sessions_session_changelist", current_app=self.admin_site.name
        )
        return format_html('<a href="{}">{}</a>', url + Query(user=user_id).address(), text)


def _own_id(request: HttpRequest) -> str | None:
    return getattr(request.session.session_key, "id", None)


def _without(fields: Iterable[Any], name: str) -> Iterator[Any]:
    """The fields of a fieldset, of which some may share a line, without one of them."""
    for field in fields:
        if isinstance(field, list | tuple):
            yield [*_without(field, name)]
        elif field != name:
            yield field


def _told(
    sessions: Sequence[LiveSession],
    users: dict[str, Any],
    context: str | None,
    *,
    tried: bool = False,
) -> Iterator[str]:
    """What the log says of each that was ended; of each that may have been, where ``tried``."""
    if context is not None:
        text = _("Ended the context %(context)s in the session of %(user)s.")
        if tried:
            text = _(
                "Tried to end the context %(context)s in the session of %(user)s: the store went "
                "away, and did not say whether it had."
            )
    elif tried:
        text = _(
            "Tried to end the session of %(user)s (%(transport)s transport): the store went away, "
            "and did not say whether it had."
        )
    else:
        text = _("Ended the session of %(user)s (%(transport)s transport).")
    for one in sessions:
        transport = transport_name(one.transport)
        yield text % {"user": _whose(one, users), "transport": transport, "context": context}


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
                "transport": transport_name(transport),
                "signed_in": signed_in,
                "anonymous": anonymous,
                "all": signed_in + anonymous,
            }
        )
    return rows


def _filters(query: Query) -> list[SimpleNamespace]:
    """The filters of the sidebar, each with its choices, as the admin's list wants them."""

    def filter_(title: str, name: str, options: Iterable[tuple[Any, str]]) -> SimpleNamespace:
        choices = [
            {
                "selected": getattr(query, name) == value,
                "query_string": query.address(**{name: value}),
                "display": text,
            }
            for value, text in options
        ]
        return SimpleNamespace(
            title=title, template="admin/filter.html", choices=lambda changelist: choices
        )

    transports = (("", _("All")), ("header", _("Header")), ("cookie", _("Cookie")))
    users = ((None, _("All")), (True, _("Signed in")), (False, _("Anonymous")))
    return [
        filter_(_("transport"), "transport", transports),
        filter_(_("user"), "signed_in", users),
        filter_(_("idle time"), "idle", [(0, _("Any")), *((s, _longer(s)) for s in IDLE)]),
    ]


def _longer(seconds: int) -> str:
    return _("Longer than %(time)s") % {"time": duration(seconds * 1000)}


def _action_form() -> ActionForm:
    form = ActionForm(auto_id=False)
    cast("Any", form.fields["action"]).choices = [("", "---------"), (END, _("End sessions"))]
    return form
