"""How long a broken stream is tried again: with growing pauses, and not for ever."""

from __future__ import annotations

import pytest

from edge_mil.client.channel import LONGEST_PAUSE_S
from edge_mil.client.reconnection import BUSY_PATIENCE_S, Reconnection
from edge_mil.errors import RemoteBusyError, ServiceUnavailableError

AWAY = ServiceUnavailableError("The service is away.")
BUSY = RemoteBusyError("Another client streams.", "ABORTED", "SESSION_BUSY")


def test_pauses_double_up_to_the_longest_and_start_anew_after_a_connection() -> None:
    reconnection = Reconnection(600.0)
    pauses = [reconnection.pause_s(AWAY, 0.0, now) for now in range(7)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    reconnection.connected()
    assert reconnection.pause_s(AWAY, 0.0, 7.0) == 0.1


def test_the_service_may_ask_for_a_longer_pause() -> None:
    assert Reconnection(600.0).pause_s(AWAY, 5.0, 0.0) == 5.0


def test_a_service_that_stays_away_is_given_up_with_its_own_error() -> None:
    reconnection = Reconnection(10.0)
    reconnection.pause_s(AWAY, 0.0, 100.0)
    reconnection.pause_s(AWAY, 0.0, 110.0)
    with pytest.raises(ServiceUnavailableError) as caught:
        reconnection.pause_s(AWAY, 0.0, 110.1)
    assert caught.value is AWAY


def test_a_session_that_another_client_keeps_is_given_up_earlier() -> None:
    reconnection = Reconnection(600.0)
    reconnection.pause_s(BUSY, 0.0, 0.0)
    reconnection.pause_s(BUSY, 0.0, BUSY_PATIENCE_S)
    with pytest.raises(RemoteBusyError):
        reconnection.pause_s(BUSY, 0.0, BUSY_PATIENCE_S + 0.1)
