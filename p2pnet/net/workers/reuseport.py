"""Several sockets on one UDP port, and which of them gets a datagram (Linux, SO_REUSEPORT).

The kernel runs a program of ours: a relay frame goes to the socket that the first byte of its
channel id names, which is random, everything else to the first socket. The program reads nothing
but the datagram, so a node keeps its socket when its NAT gives it another address. See socket(7)
for the options, Linux' filter.h and bpf_common.h for the instructions. A program of this older
kind needs no privilege.
"""

import ctypes
import socket
import struct
import sys
from collections.abc import Iterable

from p2pnet.net.udp import open_socket

SO_ATTACH_REUSEPORT_CBPF = 51
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, if false, operand
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog: number of instructions, where they are

LOAD_BYTE, AND, MODULO, JUMP_IF_EQUAL = 0x30, 0x54, 0x94, 0x15
RETURN, RETURN_RESULT = 0x06, 0x16


def steering_program(sockets: int) -> list[tuple[int, int, int, int]]:
    """The instructions that choose one of so many sockets: code, two jumps and operand of each.

    A load beyond the end of the datagram chooses socket 0.
    """
    return [
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xF0),
        (JUMP_IF_EQUAL, 0, 3, 0x20),  # a relay frame (p2pnet.wire.demux)?
        (LOAD_BYTE, 0, 0, 1),  # the first of its channel id (p2pnet.wire.relay_frame)
        (MODULO, 0, 0, sockets),
        (RETURN_RESULT, 0, 0, 0),
        (RETURN, 0, 0, 0),
    ]


def steer(opened: socket.socket, sockets: int) -> None:
    """Have the program choose among the sockets that share a port with `opened`. Raises OSError."""
    program = steering_program(sockets)
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in program))
    value = _PROGRAM.pack(len(program), ctypes.addressof(code))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, value)


def open_group(
    host: str, port: int, sockets: int, options: Iterable[tuple[int, int, int]] = ()
) -> list[socket.socket]:
    """So many sockets on one port (0 for any), in the order in which the program counts them.

    The kernel counts them in the order of binding, for as long as none is closed; a duplicate of a
    descriptor keeps its socket open. Raises OSError, also if another program uses the port.
    """
    shared = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Only once it is bound: with the option two Intermediates could share a port unknowingly.
    opened = [open_socket(host, port, options)]
    try:
        opened[0].setsockopt(*shared)
        port = opened[0].getsockname()[1]
        while len(opened) < sockets:
            opened.append(open_socket(host, port, [shared, *options]))
        steer(opened[0], sockets)
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


def is_available() -> bool:
    """Whether this system lets several sockets share a port and a program choose among them."""
    if sys.platform != "linux":
        return False
    try:
        opened = open_group("127.0.0.1", 0, 2)
    except OSError:
        return False
    for each in opened:
        each.close()
    return True
