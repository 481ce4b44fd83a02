"""The light client: frames in, answers and scores of a service out.

It needs grpcio, protobuf and numpy only, and nothing of POSIX: it works on Windows too.

`client` is one service, `session` one slide that it reads. `stream` sends fields, resumes by itself
and calls back with each answer: `outbox` numbers the frames and keeps them until they are answered,
`reconnection` says when to try again, `stream_summary` counts, and `answers` has the errors and the
stored answers of single fields. `channel` makes the calls and turns statuses into errors;
`decoding` turns messages into the values of `values`, `calibration` does so for calibrations.
"""

from typing import TYPE_CHECKING

from edge_mil.client.calibration import CalibrationInfo
from edge_mil.client.client import Client
from edge_mil.client.session import ClientSession
from edge_mil.client.stream import FieldStream
from edge_mil.client.stream_summary import StreamSummary
from edge_mil.client.values import (
    FieldInfo,
    ModelInfo,
    MosaicInfo,
    ScoreInfo,
    ServerInfo,
    SessionInfo,
)
from edge_mil.renamed import renamed
from edge_mil.rpc.allocator import tune_allocator
from edge_mil.types import CellLayer, InfluenceMap

__all__ = [
    "CalibrationInfo",
    "CellLayer",
    "Client",
    "ClientSession",
    "FieldInfo",
    "FieldStream",
    "InfluenceMap",
    "ModelInfo",
    "MosaicInfo",
    "ScoreInfo",
    "ServerInfo",
    "SessionInfo",
    "StreamSummary",
    "tune_allocator",
]

if not TYPE_CHECKING:  # else mypy would accept any name
    __getattr__ = renamed(__name__, {"HeatMap": "InfluenceMap"})
