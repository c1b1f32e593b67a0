"""Sockets between ranks: the same vectors as gloo's, strangers kept out, ends noticed, none where there is no way."""

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_tasks.training import mesh
from ssl_tasks.training.collectives import rank
from ssl_tasks.training.mesh import PIECE, Mesh, connect

SHAPES = ((), (0,), (257,), (PIECE // 8,), (PIECE // 8 + 1,), (300, 500))
"""Of float64: up to twenty pieces."""


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mesh]]:
    """Two ranks in one process."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    server = mesh._server(2)
    assert server is not None
    token, peers = secrets.token_bytes(mesh.TOKEN_BYTES), dict[int, socket.socket]()
    with server:
        other = mesh._greet(server.getsockname(), token, 1)
        mesh._welcome(server, token, peers)
    with peers[1], other:
        yield [Mesh(0, peers), Mesh(1, {0: other})]


def tensors(number: int) -> list[Tensor]:
    shapes = [
        torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(number)) for shape in SHAPES
    ]
    image = torch.arange(96.0).view(2, 3, 4, 4).add(number).to(memory_format=torch.channels_last)
    return [*shapes, image, shapes[-1].T, shapes[-1].bfloat16(), shapes[-1] > number]


def gathered() -> list[Tensor]:
    mesh = connect()
    assert mesh is not None
    return [mesh.gather(x) for x in tensors(rank())]


def summed() -> list[Tensor]:
    """Each rank's share of its own row and the other's."""
    mesh = connect()
    assert mesh is not None
    return [mesh.sum_of_mine(torch.stack([x, 2 * x], dim=-1).movedim(-1, 0)) for x in tensors(rank())[:-1]]


def without_a_way() -> list[bool]:
    """Rank 1 does not know where rank 0 is; then both do."""
    address = os.environ["MASTER_ADDR"]
    if rank() == 1:
        del os.environ["MASTER_ADDR"]
    first = mesh.connect()
    os.environ["MASTER_ADDR"] = address
    return [first is None, mesh.connect() is not None]


def test_every_rank_gets_all_tensors_in_rank_order(run_ranks: Any) -> None:
    expected = [torch.stack(pair) for pair in zip(tensors(0), tensors(1), strict=True)]
    for found in run_ranks(gathered):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_every_rank_gets_the_sum_of_its_shares(run_ranks: Any) -> None:
    for number, found in enumerate(run_ranks(summed)):
        expected = [(number + 1) * (x + y) for x, y in zip(tensors(0), tensors(1), strict=True)][:-1]
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_where_one_rank_has_no_way_none_has_a_mesh(run_ranks: Any) -> None:
    assert run_ranks(without_a_way) == [[True, True]] * 2


def test_all_may_send_a_piece_before_anyone_reads(pair: list[Mesh]) -> None:
    vector = torch.arange(PIECE, dtype=torch.uint8)
    found: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda at=at: found.update({at.rank: at.gather(vector)})) for at in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(torch.equal(found[number], torch.stack([vector, vector])) for number in (0, 1))


def test_a_rank_that_has_ended_is_no_endless_wait(pair: list[Mesh]) -> None:
    first, second = pair
    second.peers[0].close()
    with pytest.raises(OSError, match=r"ended|reset|pipe"):
        first.gather(torch.zeros(3))


def test_a_stranger_is_not_taken_for_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    server = mesh._server(2)
    assert server is not None
    token, peers = secrets.token_bytes(mesh.TOKEN_BYTES), dict[int, socket.socket]()
    with server, socket.create_connection(server.getsockname()) as short:
        short.sendall(b"GET /")
        short.shutdown(socket.SHUT_WR)
        mesh._welcome(server, token, peers)
        mesh._greet(server.getsockname(), secrets.token_bytes(mesh.TOKEN_BYTES), 1).close()
        mesh._welcome(server, token, peers)
        assert not peers
        with mesh._greet(server.getsockname(), token, 1):
            mesh._welcome(server, token, peers)
        assert list(peers) == [1]
        peers[1].close()
