"""Several sockets on one UDP port, and the filter that chooses among them (Linux, SO_REUSEPORT).

The kernel runs a classic BPF program for each datagram: the first byte of the channel id, which is
random, chooses the socket of a relay frame; the first socket gets everything else. The choice
depends on the datagram alone, so that a node keeps its socket when its NAT gives it another
address. socket(7) describes the options, Linux' filter.h and bpf_common.h the instructions. Unlike
eBPF, a classic program needs no privilege.
"""

import ctypes
import socket
import struct
import sys
from collections.abc import Iterable

from p2pnet.net.udp import open_socket
from p2pnet.wire.relay_frame import RELAY_VERSION_0

SO_ATTACH_REUSEPORT_CBPF = 51
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, if false, operand
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog: number of instructions, their address

LOAD_BYTE, AND, MODULO, JUMP_IF_EQUAL = 0x30, 0x54, 0x94, 0x15
RETURN, RETURN_RESULT = 0x06, 0x16


def steering_program(sockets: int) -> list[tuple[int, int, int, int]]:
    """The instructions (code, jt, jf, k) that return the index of one of `sockets` sockets.

    A load beyond the end of a datagram makes the program return 0, the first socket.
    """
    return [
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xF0),
        (JUMP_IF_EQUAL, 0, 3, RELAY_VERSION_0[0]),  # a relay frame?
        (LOAD_BYTE, 0, 0, 1),  # the first byte of its channel id
        (MODULO, 0, 0, sockets),
        (RETURN_RESULT, 0, 0, 0),
        (RETURN, 0, 0, 0),
    ]


def steer(opened: socket.socket, sockets: int) -> None:
    """Attach the program to the sockets that share the port of `opened`. Raises OSError."""
    program = steering_program(sockets)
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in program))
    value = _PROGRAM.pack(len(program), ctypes.addressof(code))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, value)


def open_group(
    host: str, port: int, sockets: int, options: Iterable[tuple[int, int, int]] = ()
) -> list[socket.socket]:
    """Open `sockets` sockets on one port (0 for any), in the order of the program's indices.

    The kernel numbers them in the order of binding, and anew when one is closed; a duplicate of a
    descriptor keeps its socket open. Raises OSError, also if another program uses the port.
    """
    shared = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # The first gets the option after bind(): else two Intermediates could share a port unknowingly.
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
    """Whether this system lets several sockets share a port with a filter."""
    if sys.platform != "linux":
        return False
    try:
        opened = open_group("127.0.0.1", 0, 2)
    except OSError:
        return False
    for each in opened:
        each.close()
    return True
