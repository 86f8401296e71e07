"""Makes a BPF map and a link (an XDP program on lo), hands both over, and goes.

Run in a network namespace of its own; file descriptor 0 is a Unix socket to whoever wants them.
Whoever holds the map has its contents, and the program stays attached as long as somebody holds
the link: bpf(2).
"""

import array
import ctypes
import os
import socket
import struct
import sys

SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine)
MAP_CREATE, MAP_UPDATE, PROG_LOAD, LINK_CREATE = 0, 2, 5, 28
MAP_TYPE_ARRAY, PROG_TYPE_XDP, ATTACH_XDP = 2, 6, 37
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    room = ctypes.create_string_buffer(attributes, 256)
    result = libc.syscall(SYS_BPF, command, room, len(room))
    if result < 0:
        error = ctypes.get_errno()
        sys.exit(f"bpf({command}): {os.strerror(error)}")
    return result


def address(buffer):
    return ctypes.addressof(buffer)


table = bpf(MAP_CREATE, struct.pack("<IIII", MAP_TYPE_ARRAY, 4, 8, 1))
key = ctypes.create_string_buffer(struct.pack("<I", 0))
value = ctypes.create_string_buffer(struct.pack("<Q", 42))
bpf(MAP_UPDATE, struct.pack("<IIQQQ", table, 0, address(key), address(value), 0))

# r0 = XDP_PASS; exit
program = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(PROG_LOAD, struct.pack("<IIQQ", PROG_TYPE_XDP, 2, address(program), address(licence)))
link = bpf(LINK_CREATE, struct.pack("<IIII", program, socket.if_nametoindex("lo"), ATTACH_XDP, 0))

to = socket.socket(fileno=0)
rights = array.array("i", [table, link])
to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
