"""Images that a request names by URL: from hosts that the operator allows, and nowhere else.

A redirect is refused, whoever sends it: it would lead to an address that nobody has allowed. So is a proxy of the
environment. A name that is allowed may resolve to any address; who allows it answers for it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from app.errors import BadImage, TooLarge
from app.outbound import entry, named, place

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 10.0
AT_ONCE = 16
OK = 200


class Remote:
    """Fetches images; one for a process.

    Args:
        hosts: `name` for the scheme's own port, or `name:port`; none: every URL is refused.
        max_bytes: of the images of one request together.
    """

    def __init__(self, hosts: Sequence[str], max_bytes: int) -> None:
        self._hosts = tuple(hosts)
        self._max_bytes = max_bytes
        self._client: httpx.AsyncClient | None = None

    async def fetch(self, urls: Mapping[int, str], take: Callable[[int], None]) -> dict[int, bytes]:
        """The bytes behind each URL, several at a time.

        Args:
            urls: by the image's place in the request.
            take: told of bytes as they come; may refuse them.

        Raises:
            BadImage: code image_url_refused, image_url_failed; its `index` in `extra`.
            TooLarge: they are larger than a request's body may be.
            Overloaded: as `take`.
        """
        for index, url in urls.items():
            self._check(url, index)
        budget, turns = _Budget(self._max_bytes, take), asyncio.Semaphore(AT_ONCE)

        async def one(index: int, url: str) -> bytes:
            async with turns:
                return await self._get(url, index, budget)

        tasks = [asyncio.ensure_future(one(index, url)) for index, url in urls.items()]
        try:
            return dict(zip(urls, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Closes connections that were kept."""
        if self._client is not None:
            await self._client.aclose()

    def _check(self, url: str, index: int) -> None:
        found = repr(url[:200])
        try:
            wanted = place(url)
        except ValueError as error:
            found, hint = f"{found} ({error})", "write it as https://HOST/PATH"
        else:
            if named(wanted, self._hosts):
                return
            hint = f'have the operator add "{entry(wanted)}" to it'
        raise BadImage(
            f"expected a URL of http or https at a host of GRAFT_IMAGE_HOSTS; found {found}; send the image itself, or "
            f"{hint}",
            code="image_url_refused",
            index=index,
        )

    async def _get(self, url: str, index: int, budget: "_Budget") -> bytes:
        import httpx

        if self._client is None:
            limits = httpx.Limits(max_connections=4 * AT_ONCE, max_keepalive_connections=AT_ONCE)
            self._client = httpx.AsyncClient(
                timeout=TIMEOUT_SECONDS, limits=limits, follow_redirects=False, trust_env=False
            )
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._read(self._client, url, index, budget)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise BadImage(
                f"expected an image at {url[:200]!r} within {TIMEOUT_SECONDS:.0f} s; found {type(error).__name__} "
                f"{error}; see that the address answers, or send the image itself",
                code="image_url_failed",
                index=index,
            ) from error

    async def _read(self, client: "httpx.AsyncClient", url: str, index: int, budget: "_Budget") -> bytes:
        data = bytearray()
        # Unpacked, a small answer is as large as it likes, before anybody has counted it; images are packed anyway.
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        async with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != OK:
                raise BadImage(
                    f"expected an image at {url[:200]!r}; found status {answer.status_code}; send the address that "
                    "answers 200, since redirects are not followed",
                    code="image_url_failed",
                    index=index,
                )
            packing = answer.headers.get("content-encoding", "identity").strip().lower()
            if packing != "identity":
                raise BadImage(
                    f"expected an image at {url[:200]!r} as it is; found it in content encoding {packing[:40]!r}; have "
                    "the address answer without, as it was asked to, or send the image itself",
                    code="image_url_failed",
                    index=index,
                )
            async for chunk in answer.aiter_raw():
                budget.spend(len(chunk))
                data += chunk
        return bytes(data)


class _Budget:
    """Bytes that the images of one request may have together."""

    def __init__(self, most: int, take: Callable[[int], None]) -> None:
        self._most, self._left, self._take = most, most, take

    def spend(self, number: int) -> None:
        """Takes some.

        Raises:
            TooLarge: there are not as many left.
            Overloaded: memory has no room for them.
        """
        self._left -= number
        if self._left < 0:
            raise TooLarge(f"expected images of at most {self._most} bytes together; found more; send fewer at once")
        self._take(number)
