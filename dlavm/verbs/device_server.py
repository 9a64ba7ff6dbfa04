"""`dlavm device-server`: the device of this machine for `tcp:` engines of others."""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
from collections.abc import Callable
from types import FrameType

from dlavm.verbs.common import Subparsers, add_verb, positive, print_json, text

LISTEN = "127.0.0.1:8124"
POLL_MS = 250  # a signal ends the wait earlier, unless it comes just before it
GIB = 1 << 30


def add_parser(sub: Subparsers) -> None:
    parser = add_verb(
        sub,
        "device-server",
        run,
        "serve a device to other machines",
        "Engines named tcp:HOST:PORT then work on that device, one client at a time. Prints one line with the address\n"
        "when it is ready, and what clients do on stderr; SIGTERM and Ctrl-C end it with exit code 0. The secret and\n"
        "all data cross the network in the clear: outside of a trusted network, use an SSH tunnel (doc/devices.md).",
        f"""dlavm device-server
        dlavm device-server --device xdma:/dev/xdma0 --listen 0.0.0.0:8124 --secret-file secret.txt
        dlavm run output/stories --engine tcp:{LISTEN} --prompt "Once"
        DLAVM_DEVICE_SECRET_FILE=secret.txt dlavm run output/stories --engine tcp:board.local:8124 --prompt "Once" """,
    )
    parser.add_argument("--device", type=text, default="sim:", metavar="URL", help="device (default %(default)s)")
    parser.add_argument(
        "--listen", type=text, default=LISTEN, metavar="HOST:PORT", help="default %(default)s; port 0: a free one"
    )
    parser.add_argument("--secret-file", type=text, metavar="F", help="file with a text that clients have to know")
    parser.add_argument(
        "--max-memory", type=positive, metavar="GIB", default=128, help="of a client's board (default %(default)s GiB)"
    )


def run(args: argparse.Namespace) -> int:
    from dlavm.sim.native import DeviceServer

    stopped = _stop_on_signals()
    with DeviceServer(args.device, args.listen, args.secret_file, args.max_memory * GIB) as server:
        host = args.listen.rpartition(":")[0]
        if args.json:
            print_json({"device": args.device, "host": host, "port": server.port})
        else:
            print(f"{args.device} at {host}:{server.port}")
        sys.stdout.flush()
        if not args.secret_file and not _is_loopback(host):
            print("no --secret-file: whoever reaches this port has the device", file=sys.stderr)
        while not stopped():
            for line in server.poll(POLL_MS):
                print(line, file=sys.stderr, flush=True)
    return 0


def _stop_on_signals() -> Callable[[], bool]:
    """Whether SIGTERM or SIGINT came since."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return lambda: bool(came)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
