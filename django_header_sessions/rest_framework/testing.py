"""Test clients for APIs made with DRF: ``format="json"`` and a header session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.test import APIClient, APIRequestFactory

from ..testing import AsyncHeaderSessionClient, HeaderSessionClient

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedASGIResponse as Response

__all__ = ["AsyncHeaderSessionAPIClient", "HeaderSessionAPIClient"]


class HeaderSessionAPIClient(HeaderSessionClient, APIClient):
    """DRF's ``APIClient`` with a header session."""

    def request(self, **request: Any) -> Any:
        # What ``credentials()`` was told, which wins; APIClient adds it later than is looked here.
        return super().request(**request | self._credentials)

    def logout(self) -> None:
        self._drop_what_was_forced()
        super().logout()

    async def alogout(self) -> None:
        self._drop_what_was_forced()
        await super().alogout()

    def _drop_what_was_forced(self) -> None:
        # What APIClient does beside, which ends with a look at the cookie.
        handler: Any = self.handler
        self._credentials: dict[str, Any] = {}
        handler._force_user = handler._force_token = None


class AsyncHeaderSessionAPIClient(AsyncHeaderSessionClient):
    """The same for async tests. DRF has no async client, so this is Django's, with ``format``."""

    async def post(  # type: ignore[override]
        self, path: str, data: Any = None, **extra: Any
    ) -> Response:
        return await super().post(path, **encoded(data, extra))

    async def put(  # type: ignore[override]
        self, path: str, data: Any = None, **extra: Any
    ) -> Response:
        return await super().put(path, **encoded(data, extra))

    async def patch(  # type: ignore[override]
        self, path: str, data: Any = None, **extra: Any
    ) -> Response:
        return await super().patch(path, **encoded(data, extra))

    async def options(  # type: ignore[override]
        self, path: str, data: Any = None, **extra: Any
    ) -> Response:
        return await super().options(path, **encoded(data, extra))

    async def delete(  # type: ignore[override]
        self, path: str, data: Any = None, **extra: Any
    ) -> Response:
        return await super().delete(path, **encoded(data, extra))


def encoded(data: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """``extra`` with the body that ``APIRequestFactory`` makes of ``data``."""
    factory: Any = APIRequestFactory()
    format_, content_type = extra.pop("format", None), extra.pop("content_type", None)
    body, kind = factory._encode_data(data, format_, content_type)
    return extra | {"data": body, "content_type": kind or "application/octet-stream"}
