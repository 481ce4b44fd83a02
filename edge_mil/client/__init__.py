"""The light client: pure Python on grpcio, protobuf and numpy, on Windows too."""

from edge_mil.client.calibration import CalibrationInfo
from edge_mil.client.client import Client
from edge_mil.client.session import ClientSession
from edge_mil.client.stream import FieldStream, StreamSummary
from edge_mil.client.values import (
    FieldInfo,
    ModelInfo,
    MosaicInfo,
    ScoreInfo,
    ServerInfo,
    SessionInfo,
)
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
