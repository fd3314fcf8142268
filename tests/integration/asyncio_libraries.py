"""A handler that asks other servers, by libraries of asyncio's as they are."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import aiohttp
import anyio.to_thread
import asyncpg
import httpx
import redis.asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sockserve import aio
from sockserve.http import HTTPRequestHandler

FOLDER = os.environ["POSTGRESQL"]


@cache
def http() -> httpx.AsyncClient:
    return httpx.AsyncClient()


@cache
def database() -> Any:
    return asyncpg.create_pool(host=FOLDER, user="tests", database="postgres", min_size=1)


@cache
def engine() -> AsyncEngine:
    return create_async_engine(f"postgresql+asyncpg://tests@/postgres?host={FOLDER}", pool_size=1)


@cache
def store() -> redis.asyncio.Redis:
    return redis.asyncio.Redis(unix_socket_path=os.environ["REDIS"], max_connections=2)


class Page(HTTPRequestHandler):
    """GET /LIBRARY asks for something that is there at once, GET /LIBRARY/slow for what is not."""

    async def do_GET(self) -> None:
        library, _, how = self.path.strip("/").partition("/")
        ask: Callable[[bool], Awaitable[str]] = getattr(self, library)
        if how == "caught":
            try:
                with aio.raising_reason():
                    answer = await ask(True)
            except TimeoutError as error:
                answer = f"caught: {error}"
        else:
            answer = await ask(how == "slow")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    async def plain(self, slow: bool) -> str:
        if slow:
            await asyncio.sleep(60)
        return "plain"

    def url(self, slow: bool) -> str:
        host, port = self.server.server_address
        return f"http://{host}:{port}/plain{'/slow' if slow else ''}"

    async def httpx(self, slow: bool) -> str:
        return (await http().get(self.url(slow), timeout=30)).text

    async def aiohttp(self, slow: bool) -> str:
        async with aiohttp.ClientSession() as session, session.get(self.url(slow)) as response:
            return await response.text()

    async def anyio(self, slow: bool) -> str:
        async with anyio.create_task_group():
            await anyio.sleep(60 * slow)
        return await anyio.to_thread.run_sync("from a {}".format, "thread")

    async def asyncpg(self, slow: bool) -> str:
        pool = await database()
        answer = await pool.fetchval("SELECT 'a row'::text FROM pg_sleep($1)", 60 * slow)
        return str(answer)

    async def redis(self, slow: bool) -> str:
        if slow:
            await store().blpop(["nothing"], 60)
        await store().set("key", "a value")
        return str((await store().get("key")).decode())

    async def sqlalchemy(self, slow: bool) -> str:
        async with engine().connect() as connection:
            query = text("SELECT 'a row'::text FROM pg_sleep(:seconds)")
            return str((await connection.execute(query, {"seconds": 60 * slow})).scalar_one())

    async def together(self, slow: bool) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ask(slow))
                for ask in (
                    self.httpx,
                    self.aiohttp,
                    self.anyio,
                    self.asyncpg,
                    self.redis,
                    self.sqlalchemy,
                )
            ]
        return ", ".join(task.result() for task in tasks)
