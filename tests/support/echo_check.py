"""An echo checker that shares no code with the project: python3, standard library only.

Usage: echo_check.py PORT CONNECTIONS

Half of the connections talk (a counter of 4 bytes, big-endian, the next when the last came
back), a quarter stop inside of a message, a quarter are silent and prove at the end that they
live. Prints "ready", goes on until its input ends, lets everybody finish, and prints what it
saw: exit 0 if each connection got back exactly what it sent, else 1 with the differences.
"""

import selectors
import socket
import struct
import sys
import time


class Peer:
    def __init__(self, port, kind):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.kind = kind
        self.sent = bytearray()
        self.got = bytearray()
        self.number = 0
        self.rest = b""
        self.rest_due = 0.0
        self.fault = None

    def say(self, now, stopping):
        """Sends the next message, or the rest of one, if it is time."""
        if self.rest:
            if now >= self.rest_due or stopping:
                self.push(self.rest)
                self.rest = b""
        elif len(self.got) == len(self.sent) and not stopping:
            message = struct.pack(">I", self.number)
            self.number += 1
            if self.kind == "half":
                cut = 1 + self.number % 3
                self.push(message[:cut])
                self.rest, self.rest_due = message[cut:], now + 0.3
            else:
                self.push(message)

    def push(self, data):
        self.socket.sendall(data)
        self.sent += data

    def hear(self):
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            self.fault = str(error)
            return
        if not data:
            self.fault = "closed by the server"
        self.got += data
        if not self.sent.startswith(self.got):
            self.fault = f"got {bytes(self.got[-8:])!r} at {len(self.got)}"

    def owes(self):
        return len(self.got) < len(self.sent) // 4 * 4


def main():
    port, count = int(sys.argv[1]), int(sys.argv[2])
    kinds = ["talk", "half", "talk", "idle"]
    peers = [Peer(port, kinds[n % 4]) for n in range(count)]
    selector = selectors.DefaultSelector()
    for peer in peers:
        selector.register(peer.socket, selectors.EVENT_READ, peer)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)

    stopping, end, tick = False, None, 0.0
    while True:
        now = time.monotonic()
        if now >= tick or stopping:
            tick = now + 0.02
            for peer in peers:
                if peer.kind != "idle" and not peer.fault:
                    peer.say(now, stopping)
        for key, _ in selector.select(0.02):
            peer = key.data
            if peer is None:
                if not sys.stdin.read(1):
                    selector.unregister(sys.stdin)
                    stopping, end = True, time.monotonic() + 30
                    for peer in peers:
                        if peer.kind == "idle":
                            peer.push(struct.pack(">I", 7))
                continue
            if not peer.fault:
                peer.hear()
            if peer.fault:
                selector.unregister(peer.socket)
        if stopping:
            busy = [p for p in peers if not p.fault and (p.owes() or p.rest)]
            if not busy or time.monotonic() > end:
                break

    messages = 0
    faults = 0
    for number, peer in enumerate(peers):
        messages += len(peer.got) // 4
        if peer.fault or bytes(peer.got) != bytes(peer.sent):
            faults += 1
            print(f"connection {number} ({peer.kind}): sent {len(peer.sent)} bytes, "
                  f"got {len(peer.got)}, {peer.fault}")
    print(f"{len(peers)} connections, {messages} messages, {faults} faults")
    sys.exit(1 if faults else 0)


main()
