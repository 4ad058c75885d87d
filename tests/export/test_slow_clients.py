"""The limits of the model server: slow, many, broken and vanishing clients, with real sockets.

No test sleeps or asserts a time: each waits for an answer, for the end of a connection or for a
line of the log.
"""

import asyncio
import json
import queue
import random
import re
import socket
import struct
import sys
import threading

import pytest

from tests.processes import ROOT

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

LARGE = 16 * 2**20  # bytes, more than the sockets of one connection hold
LIMIT = 1000  # bytes of a body
WAIT = 20  # s, after which a test has failed
HOST = b" HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
def serve(monkeypatch):
    """A function that starts a server with limits; `.lines` is the queue of its log."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "slow_clients", raising=False)
    import slow_clients

    lines, running, clients = queue.Queue(), [], []
    monkeypatch.setattr(slow_clients, "print", lambda text, flush: lines.put(text), raising=False)

    class Running:
        def __init__(self, patience=3600.0, connections=1000):
            self.lines = lines
            self.arrived, self.go = threading.Semaphore(0), threading.Event()
            config = uvicorn.Config(
                self.application, log_config=None, lifespan="off", interface="asgi3"
            )
            slow_clients.guard(config, patience, connections, LIMIT)
            self.server = uvicorn.Server(config)
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = self.listener.getsockname()
            self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
            self.thread.start()
            running.append(self)

        async def application(self, scope, receive, send):
            """Answers the length of the body with the status in the path."""
            path = scope["path"][1:]
            body = b"%d" % len((await receive())["body"])
            if path == "fault":
                raise RuntimeError("of the application")
            if path == "wait":
                self.arrived.release()
                await asyncio.get_running_loop().run_in_executor(None, self.go.wait)
            if path == "large":
                body = b"x" * LARGE
            status = int(path) if path.isdecimal() else 200
            if status >= 400:
                body = json.dumps({"error": "of two\nlines"}).encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if path == "late":
                raise RuntimeError("of the application")
            await send({"type": "http.response.body", "body": body})

        def connect(self, data=b"", small=False):
            client = socket.socket()
            client.settimeout(WAIT)
            if small:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            clients.append(client)
            client.connect(self.address)
            client.sendall(data)
            return client

        def close(self):
            self.go.set()
            self.server.should_exit = self.server.force_exit = True
            self.thread.join()

    yield Running
    for server in running:
        server.close()
    for client in clients:
        client.close()


def request(path=b"/", body=b"abc", length=None, more=b""):
    length = len(body) if length is None else length
    return b"POST " + path + HOST + more + b"Content-Length: %d\r\n\r\n" % length + body


def received(client, until_end=True):
    """All that the server sends to the end of the connection, or one answer."""
    data = b""
    try:
        while until_end or not re.search(rb"\r\n\r\n.", data, re.S):
            part = client.recv(2**16)
            if not part:
                break
            data += part
    except ConnectionResetError:
        pass
    return data


def statuses(data):
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", data)]


def hang_up(client):
    """As a process that is killed: the connection is reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


GOOD = request()
HEADS = {
    "nothing": b"",
    "some of the head": b"POST / HT",
    "a head without end": b"POST /" + HOST + b"A: b\r\n",
    "no body": request(length=5, body=b""),
    "some of the body": request(length=5),
    "some chunks": b"POST /" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\na",
}


def test_a_client_has_so_much_time_for_every_part_of_a_request(serve):
    server = serve(patience=0.2)
    clients = {}
    for before in (b"", GOOD, GOOD + GOOD):
        for name, data in HEADS.items():
            clients[before, name] = server.connect(before + data)
    for (before, name), client in clients.items():
        answers = received(client)  # which ends only with the connection
        good = [200] * before.count(b"POST")
        assert statuses(answers) == good + [408] * (name != "nothing"), (before, name)
        if name != "nothing":
            assert re.search(rb'{"error": "The server waited 0.2 s for the rest of', answers)
    wanted = 3 * (len(HEADS) - 1)
    lines = [server.lines.get(timeout=WAIT) for _ in range(wanted)]
    assert all(re.fullmatch(r"127.0.0.1:\d+ '.*' 408: The server waited .*", x) for x in lines)

    # Nor does the server keep an answer for ever.
    client = server.connect(request(b"/large") * 3, small=True)
    assert "waited 0.2 s for the answer to be taken" in server.lines.get(timeout=WAIT)
    assert len(received(client)) < LARGE
    assert server.lines.empty()


@pytest.mark.parametrize("waiting", ["nothing", "some of the head", "some of the body", "answered"])
def test_many_idle_connections_shut_nobody_out(serve, waiting):
    most, count = 8, 300
    server = serve(connections=most)
    idle = []
    for _ in range(count):
        idle.append(server.connect(GOOD if waiting == "answered" else HEADS[waiting]))
        if waiting == "answered":
            assert statuses(received(idle[-1], until_end=False)) == [200]
    honest = server.connect(GOOD)
    assert statuses(received(honest, until_end=False)) == [200]
    # The oldest have gone; the newest, and the honest one between its requests, are still open.
    for client in idle[: count - most]:
        assert received(client) == b""
    rest = {"nothing": GOOD, "answered": GOOD, "some of the body": b"de"}
    for client in [honest, *idle[count - most + 2 :]]:
        client.sendall(
            GOOD if client is honest else rest.get(waiting, b"TP/1.1\r\nHost: a\r\n\r\n")
        )
        assert statuses(received(client, until_end=False)) == [200]


def test_a_connection_that_is_being_answered_is_never_closed_for_another(serve):
    most = 3
    server = serve(connections=most)
    busy = [server.connect(request(b"/wait")) for _ in range(most)]
    for _ in busy:
        assert server.arrived.acquire(timeout=WAIT)
    for _ in range(10):
        assert statuses(received(server.connect(GOOD), until_end=False)) == [503]
        assert "All 3 connections are being answered" in server.lines.get(timeout=WAIT)
    server.go.set()
    for client in busy:
        assert statuses(received(client, until_end=False)) == [200]
    assert statuses(received(server.connect(GOOD), until_end=False)) == [200]


CHUNKED = b"POST /" + HOST + b"Transfer-Encoding: chunked\r\n"
# What is sent, after which the client sends no more: the statuses of the answers.
BROKEN = {
    "garbage": (b"\x00\xff" * 50, [400]),
    "an answer": (b"HTTP/1.1 200 OK\r\n\r\n", [400]),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
    "a path of other bytes": (b"GET /\xff" + HOST + b"\r\n", [400]),
    "bodies of a wrong length": (request(length=2, body=b"abc"), [200, 400]),
    "a negative length": (request(length=-1), [400]),
    "two lengths": (request(more=b"Content-Length: 1\r\n"), [400]),
    "a length and chunks": (request(more=b"Transfer-Encoding: chunked\r\n"), [400]),
    "a chunk of no length": (CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n", [400]),
    "a chunk of another length": (CHUNKED + b"\r\n2\r\nabc\r\n0\r\n\r\n", [400]),
    "a chunk of a huge length": (CHUNKED + b"\r\nfffffffffffffffff\r\nabc", [400]),
    "a length that is huge": (request(length=10**15), [413]),
    "a length above all": (request(length=10**30), [400]),
    "a long body": (request(body=b"x" * (LIMIT + 1)), [413]),
    "a very long body": (request(body=b"x" * 2**21), [413]),
    "long chunks": (CHUNKED + b"\r\n" + b"400\r\n%s\r\n" % (b"x" * 1024) * 9 + b"0\r\n\r\n", [413]),
    "a head without end": (b"GET / HTTP/1.1\r\nA: " + b"x" * 2**18, [431]),
    "a path without end": (b"GET /" + b"x" * 2**18, [431]),
    "trailers without end": (CHUNKED + b"\r\n0\r\n" + b"A: b\r\n" * 2**16, [431]),
    "good requests, then garbage": (GOOD * 3 + b"\x00" * 100, [200, 200, 200, 400]),
    "good, then half a chunk": (GOOD + CHUNKED + b"\r\n3\r\nabc\r\nzz\r\n", [200, 400]),
    "good, then a head without end": (GOOD + b"GET / HTTP/1.1\r\nA: " + b"x" * 2**18, [200, 431]),
    "a bad request, then garbage": (request(b"/404") + b"\x00" * 100, [404, 400]),
    "good ones around a bad one": (GOOD + request(b"/400") + GOOD, [200, 400, 200]),
    "lines in a path": (request(b"/400%0d%0aGET%20/%0a"), [200]),
    "an upgrade": (GOOD.replace(b"\r\n", b"\r\nUpgrade: h2c\r\nConnection: upgrade\r\n", 1), [200]),
    "a web socket": (
        b"GET /" + HOST + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        [200],
    ),
    "a tunnel": (b"CONNECT a:1" + HOST + b"\r\n", [400]),
    "no more after a request": (GOOD, [200]),
    "hung up": (b"POST / HT", []),
    "hung up in the body": (request(length=5), []),
    "hung up after a good one": (GOOD + request(length=5), [200]),
}


def test_a_broken_request_is_one_line_and_the_others_are_answered(serve):
    server = serve()
    for name, (data, wanted) in BROKEN.items():
        client = server.connect(data)
        client.shutdown(socket.SHUT_WR)
        answers = received(client)
        assert statuses(answers) == wanted, name
        errors = [s for s in wanted if s >= 400] + ["hung up"] * name.startswith("hung up")
        assert len(re.findall(rb'{"error": ', answers)) == len([s for s in wanted if s >= 400])
        for error in errors:
            line = server.lines.get(timeout=WAIT)
            assert re.fullmatch(rf"127\.0\.0\.1:\d+ '[ -~]*' {error}: [ -~]+", line), name
    assert server.lines.empty()


def test_random_changes_of_requests_hurt_nobody(serve):
    """Any bytes, whole or cut, with a client that stays, sends no more, or resets."""
    server = serve()
    chance = random.Random(0)

    def bytes_of(count):
        return bytes(chance.randrange(256) for _ in range(count))

    def changed(data):
        data = bytearray(data)
        for _ in range(chance.randint(1, 5)):
            at, count = chance.randrange(len(data)), chance.randint(1, 9)
            data[at : at + chance.choice([0, count])] = bytes_of(chance.choice([0, 1, count]))
        return bytes(data) or b"x"

    sources = [GOOD, GOOD + GOOD, *(data for data, _ in BROKEN.values() if len(data) < 2**12)]
    connections = 300
    for _ in range(connections):
        client = server.connect()
        try:
            client.sendall(changed(chance.choice(sources)))
            if chance.random() < 0.3:
                hang_up(client)
                continue
            client.shutdown(socket.SHUT_WR)
        except OSError:  # reset already
            continue
        for body in re.findall(rb'{"error".*?}', received(client)):
            assert json.loads(body)["error"]
    assert statuses(received(server.connect(GOOD), until_end=False)) == [200]
    server.close()
    assert server.lines.qsize() <= 3 * connections  # some hold three requests
    while not server.lines.empty():
        line = server.lines.get()
        assert re.fullmatch(r"(127\.0\.0\.1|\?):\d+ '[ -~]*' (4\d\d|hung up): [ -~]+", line)


def test_clients_that_hang_up_are_one_line(serve):
    server = serve()
    for name, data in HEADS.items():
        hang_up(server.connect(data))
        if name != "nothing":
            assert " hung up: in the middle of a request" in server.lines.get(timeout=WAIT)
    for pipelined in (1, 3):  # while the server is at work for them
        client = server.connect(request(b"/wait") * pipelined)
        assert server.arrived.acquire(timeout=WAIT)
        hang_up(client)
        server.go.set()
        assert statuses(received(server.connect(GOOD), until_end=False)) == [200]
    server.close()
    assert server.lines.empty()


def test_a_fault_of_the_server_is_a_traceback(serve, caplog):
    server = serve()
    for path, wanted in ((b"/fault", [500]), (b"/late", [200])):
        client = server.connect(request(path))
        assert statuses(received(client)) == wanted
    server.close()
    errors = [record.exc_info[1] for record in caplog.records if record.levelname == "ERROR"]
    assert [str(error) for error in errors] == ["of the application"] * 2


def test_no_more_connections_than_the_process_may_open_files(serve, monkeypatch):
    resource = pytest.importorskip("resource")
    import slow_clients

    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    monkeypatch.setattr(slow_clients, "print", lambda text: None)
    infinite = resource.RLIM_INFINITY
    for allowed, most, connections, set_to in (
        (256, 300, 200, (300, 300)),
        (256, 4096, 1000, (1100, 4096)),
        (256, infinite, 1000, (1100, infinite)),
        (50, 50, 1, (50, 50)),
        (4096, 4096, 1000, None),
        (infinite, infinite, 1000, None),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, pair=(allowed, most): pair)
        assert slow_clients.affordable(1000) == connections
        assert (limits.pop() if limits else None) == set_to
