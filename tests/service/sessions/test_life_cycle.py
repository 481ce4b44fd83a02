"""Sessions that are let go while calls use them: a call never meets one that is half gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_mil.errors import ServiceBusyError, SessionStateError
from edge_mil.pipeline import load_model
from edge_mil.service.models.registry import READY, BundleRegistry
from edge_mil.service.sessions import registry
from edge_mil.service.sessions.registry import SessionRegistry
from edge_mil.session import SessionFolder, SessionSettings

ROUNDS = 20
SESSIONS = 6
Work = Callable[[SessionRegistry, list[str]], Coroutine[Any, Any, None]]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep so few sessions open that most calls make another one leave."""
    monkeypatch.setattr(registry, "MAX_LIVE_SESSIONS", 2)


class Served:
    """One bundle and its sessions, on an event loop of this process."""

    def __init__(self, bundle: Path, state: Path) -> None:
        self.bundles = BundleRegistry([bundle], lambda opened: load_model(opened, threads=1))
        self.bundle, self._state = self.bundles.bundles[0], state

    def run(self, work: Work) -> None:
        """Open sessions, do the work, let everything go."""

        async def all_of_it() -> None:
            sessions = SessionRegistry(SessionFolder(self._state), self.bundles)
            await asyncio.to_thread(self.bundle.load)
            ids = []
            for _ in range(SESSIONS):
                async with sessions.create(self.bundle, SessionSettings(mpp=0.5)) as live:
                    ids.append(live.session.session_id)
            await work(sessions, ids)
            await sessions.release_all()

        asyncio.run(all_of_it())


@pytest.fixture
def served(bundle: Path, tmp_path: Path) -> Iterator[Served]:
    made = Served(bundle, tmp_path)
    yield made
    made.bundles.close()


@pytest.mark.usefixtures("few")
def test_streams_that_attach_while_idle_sessions_leave_keep_theirs(served: Served) -> None:
    async def work(sessions: SessionRegistry, ids: list[str]) -> None:
        chance = random.Random(1)

        async def attach(session_id: str) -> None:
            await asyncio.sleep(chance.random() * 0.03)
            async with sessions.use(session_id, writes=True) as live:
                await asyncio.sleep(chance.random() * 0.02)
                # The worker and the store of a session that left refuse this.
                await live.run(lambda: live.session.fields())
                assert sessions.live(session_id) is live

        # All are in use at times, and then several leave one after the other.
        for _ in range(ROUNDS):
            await asyncio.gather(*(attach(session_id) for session_id in ids * 2))

    served.run(work)


@pytest.mark.usefixtures("few")
def test_a_session_is_opened_once_however_many_calls_want_it(served: Served) -> None:
    async def work(sessions: SessionRegistry, ids: list[str]) -> None:
        async def find() -> object:
            async with sessions.use(ids[0]) as live:
                await asyncio.sleep(0)
                return live

        assert len(set(await asyncio.gather(*(find() for _ in range(50))))) == 1

    served.run(work)


@pytest.mark.usefixtures("few")
def test_one_session_more_than_may_be_open_is_refused_while_all_are_in_use(
    served: Served,
) -> None:
    async def work(sessions: SessionRegistry, ids: list[str]) -> None:
        async with sessions.use(ids[0]), sessions.use(ids[1]):
            with pytest.raises(ServiceBusyError, match="all are in use"):
                async with sessions.use(ids[2]):
                    pass
        async with sessions.use(ids[2]):
            pass

    served.run(work)


@pytest.mark.usefixtures("few")
def test_one_stream_more_than_the_service_states_is_refused_in_words(served: Served) -> None:
    async def work(sessions: SessionRegistry, ids: list[str]) -> None:
        leases = []
        for session_id in ids[:2]:
            async with sessions.use(session_id, writes=True) as live:
                leases.append((live, sessions.attach(live, takeover=False)))
        async with sessions.use(ids[2], writes=True) as live:
            with pytest.raises(ServiceBusyError, match="reads 2 slides at once") as caught:
                sessions.attach(live, takeover=False)
            assert caught.value.details["reason"] == "TOO_MANY_SESSIONS"
            first, lease = leases[0]
            sessions.attach(first, takeover=True)
            first.detach(lease)  # of a stream that was taken over: nothing changes
            second, lease = leases[1]
            second.detach(lease)
            sessions.attach(live, takeover=False)

    served.run(work)


def test_a_bundle_is_unloaded_only_while_nothing_uses_it_or_starts_to(served: Served) -> None:
    async def work(sessions: SessionRegistry, ids: list[str]) -> None:
        free: list[Callable[[], None]] = []

        def retire() -> None:
            free.append(served.bundle.retire())

        opening = asyncio.ensure_future(_open(sessions, served))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(SessionStateError, match="use it"):
            await sessions.release_bundle(served.bundle, retire)
        await opening
        unloading = asyncio.ensure_future(sessions.release_bundle(served.bundle, retire))
        await asyncio.sleep(0)
        # From the step on in which it was found unused nothing is opened with it.
        for use in (_open(sessions, served), _use(sessions, ids[0])):
            with pytest.raises(SessionStateError, match="is unloaded"):
                await use
        await unloading
        for step in free:
            await asyncio.to_thread(step)
        await asyncio.to_thread(served.bundle.load)
        assert served.bundle.state == READY
        await _use(sessions, ids[0])

    served.run(work)


def test_a_client_that_goes_away_while_its_session_opens_finds_it_by_its_request(
    served: Served,
) -> None:
    async def work(sessions: SessionRegistry, ids: list[str]) -> None:
        settings = SessionSettings(mpp=0.5, request_id="again", request_digest="d")
        calls = [asyncio.ensure_future(_open(sessions, served, settings)) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        found = await asyncio.gather(*calls[1:])
        found.append(await _open(sessions, served, settings))
        assert len(set(found)) == 1
        assert len(await asyncio.to_thread(sessions.folder.ids)) == SESSIONS + 1

    served.run(work)


async def _open(
    sessions: SessionRegistry, served: Served, settings: SessionSettings | None = None
) -> str:
    async with sessions.create(served.bundle, settings or SessionSettings(mpp=0.5)) as live:
        return live.session.session_id


async def _use(sessions: SessionRegistry, session_id: str) -> None:
    async with sessions.use(session_id):
        pass
