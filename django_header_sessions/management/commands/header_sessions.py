"""``manage.py header_sessions``: the monitor on the command line."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from ... import registry
from ...exceptions import SessionError, SessionUnavailable
from ...keys import ID_LENGTH, KEY_LENGTH
from ...monitor.people import ids_named, users_of
from ...monitor.query import place_text, read_place
from ...monitor.values import shown
from ...monitor.words import agent, duration, printable, timestamp
from ...registry import Cursor, LiveContext, LiveSession, Overview, Progress

MISUSED, ALARMED = 2, 3
"""Exit status of a command line that makes no sense, as argparse has it, and while an alarm stands;
1 is an error."""
BILLION = 10**9
REASON = "command"
STEP = 1000
"""Sessions after which a long work says how far it is, where it does not write to a terminal."""


class Command(BaseCommand):
    help = (
        "Shows live sessions, and ends them. Exits with 1 after an error, with 2 where it was not "
        f"called as it should be, and stats and watch exit with {ALARMED} while an alarm stands."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

        # Django's options are the command's, and most people write them last.
        last = CommandParser(add_help=False, argument_default=SUPPRESS)
        for option in ("--settings", "--pythonpath"):
            last.add_argument(option, help=SUPPRESS)
        for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
            last.add_argument(option, action="store_true", help=SUPPRESS)
        last.add_argument("-v", "--verbosity", type=int, choices=range(4), help=SUPPRESS)

        def verb(name: str, do: Callable[..., None], text: str) -> Any:
            added = verbs.add_parser(name, help=text, description=text, parents=[last])
            added.set_defaults(do=do)
            added.add_argument("--json", action="store_true", help="JSON, for machines")
            return added

        verb("stats", self.verb_stats, "live sessions, memory, and the last hour in figures")
        listing = verb("list", self.verb_list, "live sessions, latest to expire first")
        listing.add_argument("--user", metavar="NAME", help="those of this user alone")
        listing.add_argument("--limit", type=positive, default=100, help="at most so many (100)")
        listing.add_argument("--after", type=place, metavar="PLACE", help="go on from there")
        show = verb("show", self.verb_show, "one session: its fields and contexts, and their sizes")
        show.add_argument("id")
        show.add_argument("--values", action="store_true", help="what the fields hold, masked")
        end = verb("end", self.verb_end, "end sessions, for ever")
        end.add_argument("ids", nargs="*", metavar="ID")
        end.add_argument("--context", metavar="NAME", help="this context alone of one session")
        end.add_argument("--user", metavar="NAME", help="all sessions of this user")
        end.add_argument(
            "--anonymous-older-than",
            type=positive,
            metavar="SECONDS",
            help="those in which nobody is signed in and that were created longer ago",
        )
        verb("sweep", self.verb_sweep, "drop what expired sessions left in the index")
        verb("doctor", self.verb_doctor, "ask the servers for what endangers sessions")
        watch = verb("watch", self.verb_watch, "the figures, again and again")
        watch.add_argument("--every", type=positive, default=2, help="seconds between two (2)")
        watch.add_argument("--times", type=positive, help="so many times; without it, until ^C")

    def handle(self, *args: Any, do: Callable[..., None], **options: Any) -> None:
        try:
            do(**options)
            self.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has seen enough. Python would complain of what is left, at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (SessionError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error

    # The verbs.

    def verb_stats(self, **options: Any) -> None:
        figures = registry.overview()
        if options["json"]:
            self._json(overview_json(figures))
        else:
            for line in overview_lines(figures):
                self._say(line)
        self._alarm(figures)

    def verb_list(
        self, *, user: str | None, limit: int, after: Cursor | None, **options: Any
    ) -> None:
        of = [] if user is None else self._ids_of(user)
        listed: list[dict[str, Any]] = []
        count = 0
        while True:
            page = registry.page(limit - count, after, users=of)
            count, after = count + len(page.sessions), page.next
            if options["json"]:
                listed += map(session_json, page.sessions)
            else:
                self._rows(page.sessions)
            if after is None or count >= limit:
                break
        if options["json"]:
            self._json({"sessions": listed, "next": after and place_text(after)})
        elif after is not None:
            self.stderr.write(f"There are more: --after {place_text(after)}", style_func=str)

    def verb_show(self, *, id: str, values: bool, **options: Any) -> None:  # noqa: A002  its name
        found = registry.fields(id)
        if found is None:
            raise CommandError("There is no live session of that id." + if_key([id]))
        session, fields = found
        contexts = registry.contexts(session.id)
        rows = shown(fields, None, values=values)
        if options["json"]:
            listed = [
                {"name": row.name, "size": row.size} | ({"value": row.value} if values else {})
                for row in rows
            ]
            inside = [context_json(context) for context in contexts]
            whole = {"size": sum(row.size for row in rows), "fields": listed, "contexts": inside}
            self._json(session_json(session) | whole)
            return
        for name, text in (
            ("session", session.id),
            ("user", self._name(session, users_of([session]))),
            ("transport", session.transport),
            ("ip", session.ip or "-"),
            ("user agent", session.user_agent or "-"),
            ("created", f"{timestamp(session.created)}, {duration(session.age_ms)} ago"),
            ("last seen", f"{timestamp(session.last_seen)}, {duration(session.idle_ms)} ago"),
            ("expires", f"{timestamp(session.expires)}, in {duration(session.expires_in)}"),
        ):
            self._say(f"{name:<11} {text}")
        for row in rows:
            self._say(f"  {row.name}  {_bytes(row.size)}")
            for line in (row.value or "").splitlines():
                self._say(f"      {line}")
        for context in contexts:
            left = duration(context.expires_in)
            self._say(f"  context {context.name}  {_bytes(context.size)}  expires in {left}")

    def verb_end(
        self,
        *,
        ids: list[str],
        context: str | None,
        user: str | None,
        anonymous_older_than: int | None,
        **options: Any,
    ) -> None:
        if sum(map(bool, (ids, user is not None, anonymous_older_than))) != 1:
            text = "Name ids, or --user, or --anonymous-older-than: one of them."
            raise CommandError(text, returncode=MISUSED)
        if context is not None and len(ids) != 1:
            raise CommandError("--context takes the id of one session.", returncode=MISUSED)
        missing: list[str] = []
        with self._progress(options, "{done} ended of {looked} looked at") as progress:
            if user is not None:
                count = 0
                for user_id in self._ids_of(user):
                    count += len(registry.end_user(user_id, REASON, progress))
            elif anonymous_older_than is not None:
                older_than = timedelta(seconds=anonymous_older_than)
                count = registry.end_anonymous(older_than, REASON, progress)
            elif context is not None:
                count = int(registry.end_context(ids[0], context))
            else:
                ended = registry.end_many(ids, REASON, progress)
                missing = sorted(set(ids) - set(ended))
                count = len(ended)
        if options["json"]:
            self._json({"ended": count})
        else:
            self.stdout.write(f"{count} ended.")
        if missing:
            # Not their names: one of them may be a session key.
            text = f"{len(missing)} of these ids are of no live session."
            raise CommandError(text + if_key(missing))
        if context is not None and not count:
            raise CommandError("There is no live session of that id with a context of that name.")

    def verb_sweep(self, **options: Any) -> None:
        count = 0
        with self._progress(options, "{done} swept") as progress:
            while dropped := registry.sweep():
                count += dropped
                progress(count, count)
        if options["json"]:
            self._json({"swept": count})
        elif registry.lists():
            self.stdout.write(f"{count} expired sessions swept.")
        else:
            self.stdout.write("This cache keeps no list of its sessions: there is none to sweep.")

    def verb_watch(self, *, every: int, times: int | None, **options: Any) -> None:
        figures: Overview | None = None
        outage: Exception | None = None
        try:
            while True:
                # An outage is what somebody watches for: it does not end the watch.
                try:
                    figures, outage = registry.overview(), None
                except (SessionUnavailable, ImproperlyConfigured) as error:
                    figures, outage = None, error
                if options["json"]:
                    self._json(overview_json(figures) if figures else {"error": str(outage)})
                else:
                    self._screen([*overview_lines(figures)] if figures else [f"DOWN: {outage}"])
                self.stdout.flush()
                times = times and times - 1
                if times == 0:
                    break
                time.sleep(every)
        except KeyboardInterrupt:
            pass
        if outage is not None:
            raise CommandError(str(outage))
        if figures is not None:
            self._alarm(figures)

    def verb_doctor(self, **options: Any) -> None:
        # What a system check may not look at, since it must not connect.
        findings = registry.examine()
        if options["json"]:
            self._json([asdict(finding) for finding in findings])
        else:
            for finding in findings:
                self._say(f"{finding.level}: {finding.text}")
                if finding.hint:
                    self._say(f"    {finding.hint}")
        errors = sum(finding.level == "error" for finding in findings)
        if errors:
            raise CommandError(f"{errors} of these lose sessions.")

    # What they have in common.

    def _rows(self, sessions: list[LiveSession]) -> None:
        users = users_of(sessions)
        for one in sessions:
            self._say(
                f"{one.id}  {self._name(one, users):<20}  {one.transport:<6}  {one.ip or '-':<15}  "
                f"{agent(one.user_agent) or '-':<24}  idle {duration(one.idle_ms):<12}  "
                f"expires in {duration(one.expires_in):<12}  {_bytes(one.size)}"
            )

    def _screen(self, lines: list[str]) -> None:
        if self.stdout.isatty():
            # Home, and each line to its end, and the rest: nothing flickers.
            lines = [_printable(line) + "\x1b[K" for line in lines]
            self.stdout.write("\x1b[H" + "\n".join([*lines, "\x1b[J"]), ending="")
        else:
            for line in [*lines, ""]:
                self._say(line)

    def _say(self, line: str) -> None:
        # Of a terminal or a file of fewer letters than there are.
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        self.stdout.write(_printable(line).encode(encoding, "replace").decode(encoding))

    def _json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value))

    def _alarm(self, figures: Overview) -> None:
        if figures.alarms:
            raise CommandError(" ".join(alarm_lines(figures)), returncode=ALARMED)

    def _ids_of(self, name: str) -> list[str]:
        ids = ids_named(name)
        if not ids:
            raise CommandError("No user is called that.")
        return ids

    def _name(self, session: LiveSession, users: dict[str, Any]) -> str:
        if session.user is None:
            return "-"
        user = users.get(session.user)
        return str(user.get_username()) if user is not None else f"#{session.user}"

    @contextmanager
    def _progress(self, options: dict[str, Any], text: str) -> Iterator[Progress]:
        """Says how far it is: on a terminal all the time, and elsewhere now and then."""
        quiet = options["json"] or options["verbosity"] == 0
        terminal = self.stderr.isatty()
        told = 0

        def tell(done: int, looked: int) -> None:
            nonlocal told
            line = text.format(done=done, looked=looked)
            if quiet:
                return
            if terminal:
                self.stderr.write(f"\r{line} …\x1b[K", style_func=str, ending="")
                self.stderr.flush()
            elif looked // STEP > told // STEP:
                self.stderr.write(line, style_func=str)
            told = looked

        try:
            yield tell
        finally:
            if terminal and told:
                self.stderr.write("\r\x1b[K", style_func=str, ending="")
                self.stderr.flush()


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= BILLION:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 to {BILLION}")
    return number


def place(text: str) -> Cursor:
    """Where a list went no further, for argparse."""
    found = read_place(text)
    if found is None:
        raise ArgumentTypeError("that is not where a list ended")
    return found


def session_json(session: LiveSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "transport": session.transport,
        "ip": session.ip,
        "user_agent": session.user_agent,
        "created": session.created.isoformat(),
        "last_seen": session.last_seen.isoformat(),
        "expires": session.expires.isoformat(),
        "expires_in": session.expires_in // 1000,
        "size": session.size,
    }


def if_key(ids: Collection[str]) -> str:
    """What to say of ids that are as long as a session key."""
    if not any(len(each) == KEY_LENGTH for each in ids):
        return ""
    return (
        f" A session's id is the first {ID_LENGTH} characters of its key. The key itself is a "
        "password, which the history of this shell may have kept."
    )


def context_json(context: LiveContext) -> dict[str, Any]:
    return {
        "name": context.name,
        "size": context.size,
        "expires_in": context.expires_in // 1000,
    }


def overview_json(figures: Overview) -> dict[str, Any]:
    return {
        "live": figures.live,
        "counts": [asdict(kind) | {"count": count} for kind, count in figures.counts.items()],
        "memory": figures.memory and asdict(figures.memory),
        "oldest": figures.oldest and session_json(figures.oldest),
        "last_hour": [
            {
                "minute": one.start.isoformat(),
                "created": one.created,
                "ended": one.ended,
                "expired": one.expired,
            }
            for one in figures.activity
        ],
        "alarms": [asdict(alarm) for alarm in figures.alarms],
    }


def overview_lines(figures: Overview) -> Iterator[str]:
    yield f"live sessions  {figures.live}"
    for kind, count in figures.counts.items():
        who = "signed in" if kind.signed_in else "anonymous"
        yield f"  {kind.transport:<6} {who:<10} {count}"
    memory = figures.memory
    if memory is not None:
        limit = f" of {_bytes(memory.limit)}" if memory.limit else ""
        policy = f" ({memory.policy})" if memory.policy else ""
        yield f"memory         {_bytes(memory.used)}{limit}{policy}"
    if figures.oldest is not None:
        idle = duration(figures.oldest.idle_ms)
        yield f"longest idle   {idle}: {figures.oldest.id}"
    hour = figures.activity
    yield (
        f"last hour      {sum(one.created for one in hour)} created, "
        f"{sum(one.ended for one in hour)} ended, "
        f"{sum(one.expired for one in hour)} expired (counted when they are swept)"
    )
    yield f"  created      {_bars([one.created for one in hour])}"
    yield f"  ended        {_bars([one.ended + one.expired for one in hour])}"
    yield from alarm_lines(figures)


def alarm_lines(figures: Overview) -> Iterator[str]:
    for alarm in figures.alarms:
        if alarm.of == "count":
            yield f"ALARM: {alarm.value} live sessions, more than {alarm.limit}."
        else:
            yield f"ALARM: {_bytes(alarm.value)} of memory, more than {_bytes(alarm.limit)}."


def _printable(line: str) -> str:
    # What clients sent must not steer the terminal.
    return "".join(c if c.isprintable() else "?" for c in printable(line))


def _bars(numbers: list[int]) -> str:
    most = max(numbers, default=0)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * number // most) if most else 0] for number in numbers)


def _bytes(number: int | None) -> str:
    return filesizeformat(number).replace("\xa0", " ") if number is not None else "-"
