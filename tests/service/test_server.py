"""The process: where it listens, health, reflection, how it starts and stops."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from running_service import RunningService, launch, open_session
from small_bundle import write_small_bundle

from edge_mil.errors import ListenError
from edge_mil.service.address import parse_address
from edge_mil.v1 import edge_mil_pb2 as pb
from edge_mil.v1 import edge_mil_pb2_grpc as rpc

SERVING = health_pb2.HealthCheckResponse.SERVING


def ended(arguments: list[str]) -> tuple[int, list[str]]:
    process, said = launch(arguments)
    lines = list(iter(lambda: said.get(timeout=60), ""))
    return process.wait(30), lines


@pytest.mark.parametrize("name", ["", "small", "edge_mil.v1.SessionService"])
def test_health_says_serving_for_the_server_its_services_and_its_bundles(
    channel: grpc.Channel, name: str
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answer = next(stub.ServerReflectionInfo(asked))
    names = {service.name for service in answer.list_services_response.service}
    assert {"edge_mil.v1.SessionService", "grpc.health.v1.Health"} <= names


def test_the_server_says_what_it_can_do(channel: grpc.Channel) -> None:
    info = rpc.ModelServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest())
    assert info.protocol_versions == ["edge_mil.v1"]
    assert (info.max_chunk_bytes, info.preferred_credits) == (1 << 20, 3)


def test_an_address_in_use_ends_with_one_sentence(service: RunningService, tmp_path: Path) -> None:
    code, lines = ended(
        ["--bundle", str(service.bundle), "--listen", service.address, "--state", str(tmp_path)]
    )
    assert code == 2
    assert len(lines) == 1
    assert "nother" in lines[0]
    # The first service lives on, and still owns the address.
    with service.channel as channel:
        assert open_session(channel).session_id


def test_a_unix_socket_is_the_owners_alone(service: RunningService) -> None:
    if not service.address.startswith("unix:"):
        pytest.skip("a TCP port has no mode")
    assert stat.S_IMODE(os.stat(service.address.removeprefix("unix:")).st_mode) == 0o600


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:50051", "[::]:50051", "[::ffff:10.0.0.1]:50051", "10.0.0.1:1"]
)
def test_an_open_network_is_refused_and_the_tunnel_named(listen: str) -> None:
    with pytest.raises(ListenError, match=r"TLS is not there yet.*SSH tunnel"):
        parse_address(listen)


@pytest.mark.parametrize(
    "listen", ["", "50051", ":50051", "127.0.0.1:", "127.0.0.1:99999", "unix:"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ListenError):
        parse_address(listen)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:5", "[::1]:5", "unix:/tmp/s"])
def test_this_machine_alone_is_a_good_address(listen: str) -> None:
    parse_address(listen)


def test_a_bundle_that_was_changed_ends_the_service(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "small").path
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"]["attend.onnx"] = "0" * 64
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    code, lines = ended(
        ["--bundle", str(bundle), "--listen", f"unix:{tmp_path}/s", "--state", str(tmp_path)]
    )
    assert code == 2
    assert "was changed after its export" in lines[-1]


def test_two_bundles_of_one_name_end_the_service(bundle: Path, tmp_path: Path) -> None:
    other = write_small_bundle(tmp_path / "other", seed=1).path
    both = ["--bundle", str(bundle), "--bundle", str(other)]
    code, lines = ended([*both, "--listen", f"unix:{tmp_path}/s", "--state", str(tmp_path)])
    assert code == 2
    assert "both named small" in lines[-1]


def test_several_bundles_are_told_apart_by_name(bundle: Path, tmp_path: Path) -> None:
    other = write_small_bundle(tmp_path / "other", name="other", instances="field").path
    service = RunningService(bundle, tmp_path, "", "--bundle", str(other))
    try:
        with service.channel as channel:
            loading = rpc.ModelServiceStub(channel).LoadModel(
                pb.LoadModelRequest(bundle_id="other"), timeout=30
            )
            assert list(loading)[-1].state == "READY"
            assert open_session(channel, bundle_id="other").model.bundle_id == "other"
            with pytest.raises(grpc.RpcError) as caught:
                open_session(channel)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "small, other" in caught.value.details()
    finally:
        assert service.stop() == 0


def test_a_bundle_is_unloaded_and_loaded_again(service: RunningService) -> None:
    with service.channel as channel:
        stub = rpc.ModelServiceStub(channel)
        stub.UnloadModel(pb.UnloadModelRequest(bundle_id="small"), timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            open_session(channel)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        states = [m.state for m in stub.LoadModel(pb.LoadModelRequest(bundle_id="small"))]
        assert states[-1] == "READY"
        assert open_session(channel).session_id


def test_a_message_above_the_limit_is_refused_by_its_size(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        open_session(channel, slide_label="x" * (2 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
