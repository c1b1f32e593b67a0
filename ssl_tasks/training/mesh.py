"""Small tensors from every rank to every rank of a gloo group, over sockets of our own.

gloo hands what it sends through threads on either side, which take twenty times as long to wake as a kilobyte needs
(tests/benchmarks/exchange.py); synchronized batch norm exchanges that much at every norm, forward and backward.

    mesh = connect()                     # all ranks at once; None where they do not reach each other
    mesh.gather(x)                       # (...) -> (world, ...)
    mesh.sum_of_mine(shares)             # (world, ...) -> (...)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed

PIECE = 1 << 16
"""Bytes that a socket holds while nobody reads, so that all can send before they read."""
CONNECT_SECONDS = 20.0
WAIT_SECONDS = 1800.0
"""For a piece: as long as a process group's own operations."""
TOKEN_BYTES, RANK_BYTES = 16, 4
Bytes = npt.NDArray[np.uint8]


class Mesh:
    """Open connections to all other ranks."""

    def __init__(self, rank: int, peers: dict[int, socket.socket]) -> None:
        self.rank, self.peers = rank, peers
        for peer in peers.values():
            peer.settimeout(WAIT_SECONDS)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def gather(self, x: Tensor) -> Tensor:
        """What all ranks bring, in rank order: (...) -> (world, ...). On the CPU, of one shape and dtype on all ranks.

        Raises:
            OSError: a rank has ended, or told nothing for half an hour.
        """
        parts = x.new_empty((len(self.peers) + 1, *x.shape))
        parts[self.rank] = x.detach()
        rows = _bytes(parts)
        self._exchange(dict.fromkeys(self.peers, rows[self.rank]), rows)
        return parts

    def sum_of_mine(self, shares: Tensor) -> Tensor:
        """The sum over ranks of each one's share for this rank: (world, ...) -> (...), with what `gather` asks for."""
        shares = shares.detach().clone(memory_format=torch.contiguous_format)
        parts = torch.empty_like(shares)
        parts[self.rank] = shares[self.rank]
        self._exchange(dict(enumerate(_bytes(shares))), _bytes(parts))
        return parts.sum(0)

    def _exchange(self, told: Mapping[int, Bytes], heard: Bytes) -> None:
        """Send each rank what is for it, and read what it sends into its row of `heard`."""
        for begin in range(0, heard.shape[1], PIECE):
            piece = slice(begin, begin + PIECE)
            for rank, peer in self.peers.items():
                peer.sendall(told[rank][piece].data)
            for rank, peer in self.peers.items():
                _read_into(peer, heard[rank][piece].data)


def _bytes(rows: Tensor) -> Bytes:
    """The memory of contiguous rows (world, ...) as (world, bytes of a row)."""
    return rows.view(len(rows), -1).view(torch.uint8).numpy()


def connect() -> Mesh | None:
    """Connect all ranks of the process group, at once. Every rank gets a mesh, or none does."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    token, peers = secrets.token_bytes(TOKEN_BYTES), dict[int, socket.socket]()
    server = _server(world)
    with server or contextlib.nullcontext(), contextlib.suppress(OSError):  # all will hear that it has not come about
        told = _from_all((server.getsockname(), token) if server else None)
        if server and None not in told:
            for other in range(rank):
                address, theirs = told[other]
                peers[other] = _greet(address, theirs, rank)
            while len(peers) < world - 1:
                _welcome(server, token, peers)
    if all(_from_all(len(peers) == world - 1)):
        return Mesh(rank, peers)
    for peer in peers.values():
        peer.close()
    return None


def _from_all(value: Any) -> list[Any]:
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _server(world: int) -> socket.socket | None:
    """Listens on the address from which this host reaches rank 0's."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((os.environ["MASTER_ADDR"], 1))  # sends nothing
            address = probe.getsockname()[0]
        server = socket.create_server((address, 0), backlog=world)
    except (OSError, KeyError):
        return None
    server.settimeout(CONNECT_SECONDS)
    _make_room(server)  # those that it accepts have it too
    return server


def _greet(address: tuple[str, int], token: bytes, rank: int) -> socket.socket:
    peer = socket.create_connection(address, CONNECT_SECONDS)
    _make_room(peer)
    peer.sendall(token + rank.to_bytes(RANK_BYTES))
    return peer


def _make_room(connection: socket.socket) -> None:
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, buffer, 2 * PIECE)


def _welcome(server: socket.socket, token: bytes, peers: dict[int, socket.socket]) -> None:
    """Take in one rank; who does not know the token is none."""
    peer, _ = server.accept()
    peer.settimeout(CONNECT_SECONDS)
    greeting = bytearray(TOKEN_BYTES + RANK_BYTES)
    with contextlib.suppress(OSError):
        _read_into(peer, memoryview(greeting))
    if secrets.compare_digest(greeting[:TOKEN_BYTES], token):
        peers[int.from_bytes(greeting[TOKEN_BYTES:])] = peer
    else:
        peer.close()


def _read_into(peer: socket.socket, room: memoryview) -> None:
    while room:
        count = peer.recv_into(room)
        if count == 0:
            raise ConnectionError("another rank has ended")
        room = room[count:]
