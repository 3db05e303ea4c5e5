"""The stores on the bench: what the tests of the contract ask of them beside their verbs.

Time passes as it is told to. Where the store goes by this process's clock, the clock is set; a
Redis goes by its own, so all moments in it are moved back instead.
"""

from __future__ import annotations

import pickle
import time
import zlib
from contextvars import copy_context
from pathlib import Path
from typing import Any

import redis
from django.core.cache import caches
from time_machine import TimeMachineFixture

from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import KINDS, Store
from django_header_sessions.stores.locmem import LocMemStore
from django_header_sessions.stores.redis import RedisStore


def open_store(alias: str = "default") -> Store:
    """The store of an alias, fetched in a context of its own.

    Django keeps a cache in the context that asks for it. What is in that of the tests is copied
    at each hop of a thread in all tests that follow, which are thousands.
    """
    return copy_context().run(get_store, alias)


class ProcessBench:
    """A store that goes by the clock of this process, which stands still."""

    def __init__(self, store: Store, clock: TimeMachineFixture) -> None:
        self.store = store
        self._clock = clock
        clock.move_to(1_800_000_000, tick=False)

    def forward(self, ms: int) -> None:
        self._clock.shift(ms / 1000)

    def level(self) -> None:
        # Everything that was created since the clock was set last expires at once anyway.
        pass

    def lose(self, session_id: str) -> None:
        assert caches["default"].delete(f"hs:s:{session_id}")

    def check(self) -> None:
        pass


class FileBench(ProcessBench):
    """A store of a FileBasedCache."""

    def __init__(self, store: Store, clock: TimeMachineFixture, folder: Path) -> None:
        super().__init__(store, clock)
        self._folder = folder

    def dump(self) -> bytes:
        stored = b""
        for path in self._folder.glob("*.djcache"):
            with path.open("rb") as file:
                # Django deletes a file that has expired when it is next asked for.
                if pickle.load(file) > time.time():
                    stored += zlib.decompress(file.read())
        return stored


class LocMemBench(ProcessBench):
    """The store of a LocMemCache."""

    def __init__(self, store: Store, clock: TimeMachineFixture) -> None:
        assert isinstance(store, LocMemStore)
        super().__init__(store, clock)
        self._index, self._taken = store._index, store._taken

    def dump(self) -> bytes:
        cached: dict[str, bytes] = caches["default"]._cache  # type: ignore[attr-defined]
        listed = repr((self._index._entries, self._index._by_user, self._taken))
        return b"".join(cached.values()) + "".join(cached).encode() + listed.encode()

    def check(self) -> None:
        cache: Any = caches["default"]
        start = cache.make_key("hs:s:")
        ids = [key[len(start) :] for key in cache._cache if key.startswith(start)]
        records = {id_: record for id_ in ids if (record := cache.get(f"hs:s:{id_}"))}
        counts = self.store.count()
        for kind in KINDS:
            of_kind = {
                session_id
                for session_id, record in records.items()
                if (record.transport, record.user is not None) == (kind.transport, kind.signed_in)
            }
            listed = [entry[1] for entry in self._index.page(10**6, None, [kind], 0)]
            assert len(listed) == len(set(listed))
            assert of_kind <= set(listed)
            assert counts[kind] >= len(of_kind)
        by_user = self._index._by_user
        for session_id, record in records.items():
            users = {user for user, ids in by_user.items() if session_id in ids}
            assert users == ({record.user} if record.user is not None else set())


class RedisBench:
    """The store of a Redis, which ``client`` is connected to."""

    def __init__(self, store: Store, client: redis.Redis) -> None:
        assert isinstance(store, RedisStore)
        self.store: Store = store
        self._client = client
        self._lost: list[str] = []

    def forward(self, ms: int) -> None:
        self._client.eval(_FORWARD, 0, ms)

    def level(self) -> None:
        self._client.eval(_LEVEL, 0)

    def lose(self, session_id: str) -> None:
        (key,) = self._client.keys(f"*:s:{session_id}")
        assert self._client.delete(key)
        self._lost.append(session_id)

    def dump(self) -> bytes:
        return b"\n".join(self._client.eval(_DUMP, 0))

    def check(self) -> None:
        assert self._client.eval(_CHECK, 0, *self._lost) == []


_FORWARD = r"""#!lua flags=allow-oom
for _, key in ipairs(redis.call('KEYS', '*')) do
  if key:find(':s:', 1, true) then
    for _, name in ipairs({'\255c', '\255s', '\255d', '\255e'}) do
      if redis.call('HEXISTS', key, name) == 1 then
        redis.call('HINCRBY', key, name, -ARGV[1])
      end
    end
    redis.call('PEXPIREAT', key, redis.call('PEXPIRETIME', key) - ARGV[1])
  elseif key:find(':[iw]:') then
    for _, entry in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('ZINCRBY', key, -ARGV[1], entry)
    end
  end
  if key:find(':c:') then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if field:sub(1, 1) == 'm' then
        local gone, rest = redis.call('HGET', key, field):match('^(%d+)(.*)')
        redis.call('HSET', key, field, string.format('%d', gone - ARGV[1]) .. rest)
      end
    end
  end
  local expires = redis.call('PEXPIRETIME', key)
  if key:find(':[clqw]:') and expires > 0 then
    redis.call('PEXPIREAT', key, expires - ARGV[1])
  end
end
"""

_LEVEL = r"""#!lua flags=allow-oom
local moment = math.huge
for _, key in ipairs(redis.call('KEYS', '*:s:*')) do
  moment = math.min(moment, redis.call('PEXPIRETIME', key))
end
if moment == math.huge then return end
for _, key in ipairs(redis.call('KEYS', '*')) do
  if key:find(':s:', 1, true) then
    redis.call('PEXPIREAT', key, moment)
  elseif key:find(':i:', 1, true) then
    for _, entry in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      redis.call('ZADD', key, moment, entry)
    end
  end
end
"""

_DUMP = r"""
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  all[#all + 1] = key
  local kind = redis.call('TYPE', key).ok
  local read = {hash = {'HGETALL', key}, zset = {'ZRANGE', key, 0, -1}, string = {'MGET', key}}
  for _, part in ipairs(redis.call(unpack(read[kind]))) do all[#all + 1] = part end
end
return all
"""

# Every session has its entries and no others, its index score is when its key expires; and what
# is listed without a session has expired, or was lost, and can be found by a sweep.
_CHECK = r"""
local wrong, lost = {}, {}
for _, id in ipairs(ARGV) do lost[id] = true end
local function complain(...) wrong[#wrong + 1] = table.concat({...}, ' ') end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local expected, prefix_of = {}, {}
for _, key in ipairs(redis.call('KEYS', '*:s:*')) do
  local prefix, id = key:match('^(.*):s:(%w+)$')
  local transport, user = unpack(redis.call('HMGET', key, '\255t', '\255u'))
  local entry = user and id .. '\0' .. user or id
  local score = redis.call('ZSCORE', prefix .. ':i:' .. transport .. (user and 1 or 0), entry)
  if not score then
    complain(key, 'is not listed')
  elseif tonumber(score) ~= redis.call('PEXPIRETIME', key) then
    complain(key, 'is listed as of', score, 'and expires at', redis.call('PEXPIRETIME', key))
  end
  expected[prefix .. ':i:' .. transport .. (user and 1 or 0) .. '/' .. entry] = true
  if user then
    if not redis.call('ZSCORE', prefix .. ':u', user .. '\0' .. id) then
      complain(key, 'is not listed under its user')
    end
    expected[prefix .. ':u/' .. user .. '\0' .. id] = true
  end
end

for _, key in ipairs(redis.call('KEYS', '*:i:*')) do
  local flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for at = 1, #flat, 2 do
    local entry, id = flat[at], flat[at]:sub(1, 15)
    if not expected[key .. '/' .. entry] then
      if tonumber(flat[at + 1]) > now and not lost[id] then
        complain(key, 'lists', entry, 'which is not there')
      end
      expected[key:gsub(':i:..$', ':u') .. '/' .. entry:sub(17) .. '\0' .. id] = true
    end
  end
end
for _, key in ipairs(redis.call('KEYS', '*:u')) do
  for _, entry in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if not expected[key .. '/' .. entry] then complain(key, 'lists', entry, 'for nothing') end
  end
end
return wrong
"""
