"""Keep an HTTP server available when some clients are slow or broken, or when there are too many.

`guard(config, ...)` changes a `uvicorn.Config` before its server starts:

- A client has `patience` seconds for each step that the server waits for: the next request on an
  open connection, the head of a request, its body, and the receipt of the answer. A request that
  comes too slowly is answered with 408.
- At most `connections` are open, or fewer if the process may not open so many files. If one more
  client connects, the connection that has kept the server waiting longest is closed. A connection
  whose request is being answered is never closed. So idle connections do not block other clients.
- A head may have at most 64 KiB (otherwise 431), a body at most `body` bytes (otherwise 413, at
  once if the request declares its length).
- Data that is not HTTP gets 400, after the answers to earlier good requests. Errors are JSON,
  `{"error": ...}`.
- A bad request is one line in the log. A traceback in the log is a fault of the server.
"""

import collections
import functools
import http
import json
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 2**16  # bytes
OTHER_FILES = 100  # files that a server has open in addition to its connections

# The steps of a client for which the server waits.
REQUEST, HEAD, BODY, ANSWER, END = (
    "the next request",
    "the rest of the head",
    "the rest of the body",
    "the answer to be taken",
    "the end of the connection",
)


def guard(config, patience, connections, body):
    """Put the limits into a `uvicorn.Config`.

    Args:
        config: `uvicorn.Config`, not loaded, with an ASGI application as `app`.
        patience: time in s for each step.
        connections: largest number of open connections, 1 or more.
        body: longest body in bytes.
    """
    config.load()
    config.loaded_app = Requests(config.loaded_app, body)
    config.http_protocol_class = functools.partial(
        Connection, everyone=Everyone(patience, affordable(connections))
    )
    config.ws_protocol_class = None
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # `note` replaces its warnings


def affordable(connections):
    """The number of connections, limited so that the process may open them and all other files."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return connections
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
        if allowed < wanted:
            connections = max(1, allowed - OTHER_FILES)
            print(f"at most {connections} connections, since {allowed} files may be open")
    return connections


def note(client, request, status, message):
    """Log one line about a bad request; text of the client is made safe to print."""
    host, port = client or ("?", 0)
    text = f"{host}:{port} {request[:100]!a} {status}: {ascii(message)[1:-1][:300]}"
    print(text, flush=True)


def error_response(status, message):
    """Status, headers and body of an error."""
    body = json.dumps({"error": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    return status, headers, body


class Everyone:
    """All open connections, and those that keep the server waiting, longest first."""

    def __init__(self, patience, most):
        self.patience = patience
        self.most = most
        self.open = set()
        self.waited_for = {}  # a dictionary, because it keeps the order

    def admit(self, connection):
        self.open.add(connection)
        while len(self.open) > self.most:
            longest = next(iter(self.waited_for))
            if longest is connection:
                return connection.refuse(503, f"All {self.most} connections are being answered.")
            longest.give_way()
            self.open.discard(longest)


class Connection(HttpToolsProtocol):
    """uvicorn's side of one connection, with the limits."""

    def __init__(self, *args, everyone, **options):
        super().__init__(*args, **options)
        self.everyone = everyone
        self.timer = None
        self.waits_for = None
        self.begun = self.in_body = False  # whether a request, or the body of one, has begun
        self.owed = 0  # number of complete requests without an answer
        self.unanswered = collections.deque()  # uvicorn's records of all requests not yet answered
        self.unread = 0  # bytes since the head began or the body last continued
        self.failure = None  # status and message for bad data after good requests
        self.no_more = False  # whether the client has stopped sending

    # --- what the server waits for ---------------------------------------------------------------

    def expect(self):
        """Find out what the server waits for, and start the time limit for it."""
        if self.waits_for is END:
            return
        if self.flow.write_paused:
            what = ANSWER
        elif self.owed:
            what = None
        elif self.in_body:
            what = BODY
        else:
            what = HEAD if self.begun else REQUEST
        if what is not self.waits_for:
            self.wait_for(what)

    def wait_for(self, what):
        self.forget()
        self.waits_for = what
        if what is not None:
            self.everyone.waited_for[self] = None
            self.timer = self.loop.call_later(self.everyone.patience, self.too_late)

    def forget(self):
        """Stop waiting."""
        if self.timer is not None:
            self.timer.cancel()
        self.everyone.waited_for.pop(self, None)

    def too_late(self):
        message = f"The server waited {self.everyone.patience:g} s for {self.waits_for}."
        if self.waits_for in (HEAD, BODY):
            return self.refuse(408, message)
        if self.waits_for is ANSWER:
            note(self.client, self.request(), "given up", message)
        self.abort()

    def give_way(self):
        if self.unfinished():
            message = f"closed while waited for {self.waits_for}, to make room for another"
            note(self.client, self.request(), "given up", message)
        self.abort()

    def abort(self):
        self.begun = self.in_body = False  # the server closes the connection, not the client
        self.forget()
        self.read_no_more()
        self.transport.abort()

    def read_no_more(self):
        """Tell the code that reads or answers requests here that the client is gone."""
        for cycle in self.unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    # --- errors ----------------------------------------------------------------------------------

    def unfinished(self):
        """Whether a request has begun but is not complete and not answered."""
        return self.begun or (self.in_body and not self.cycle.response_started)

    def request(self):
        """The known part of the first line of the request that is being read."""
        if not self.begun and not self.in_body and not self.owed:
            return "-"
        method = self.scope.get("method", "")
        return f"{method} {self.url.decode('latin-1')}".strip()

    def refuse(self, status, message):
        """Answer data that is not a request, and wait until the client closes the connection."""
        if self.transport.is_closing():
            return
        if self.in_body and self.cycle.response_started:  # already refused, for a too long body
            return self.abort()
        note(self.client, self.request(), status, message)
        self.begun = self.in_body = False
        if self.flow.write_paused:
            return self.abort()
        status, headers, body = error_response(status, message)
        phrase = http.HTTPStatus(status).phrase
        lines = [b"HTTP/1.1 %d %s" % (status, phrase.encode())]
        lines += [name + b": " + value for name, value in headers]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.read_no_more()
        # If the connection closed at once, data still arriving would reset it and the answer would
        # be lost.
        self.transport.write_eof()
        self.wait_for(END)

    def send_400_response(self, message):
        """Replaces uvicorn's answer to data that is not HTTP, whose message gives no advice."""
        self.fail(400, "This is no request of HTTP/1.1: look at its first lines and its lengths.")

    def fail(self, status, message):
        if self.owed:  # answer earlier good requests first
            self.failure = self.failure or (status, message)
        elif self.waits_for is not END:
            self.refuse(status, message)

    # --- what happens on a connection ------------------------------------------------------------

    def connection_made(self, transport):
        super().connection_made(transport)
        self.expect()
        self.everyone.admit(self)

    def data_received(self, data):
        if self.failure or self.waits_for is END:
            return
        self.unread += len(data)
        super().data_received(data)
        self.expect()
        if self.unread > MAX_HEAD and not self.failure and self.waits_for is not END:
            self.fail(431, f"The head of a request is longer than {MAX_HEAD} bytes.")

    def eof_received(self):
        self.no_more = True
        if self.owed:
            return True  # a client that has stopped sending still gets its answers
        self.read_no_more()
        return None

    def connection_lost(self, error):
        if self.unfinished():
            note(self.client, self.request(), "hung up", "in the middle of a request")
        self.forget()
        self.everyone.open.discard(self)
        self.read_no_more()
        super().connection_lost(error)

    def on_message_begin(self):
        super().on_message_begin()
        self.begun = True

    def on_headers_complete(self):
        super().on_headers_complete()
        self.unanswered.append(self.cycle)
        self.begun, self.in_body = False, True
        self.unread = 0

    def on_body(self, body):
        self.unread = 0
        super().on_body(body)

    def on_message_complete(self):
        self.in_body = False
        self.unread = 0
        self.owed += 1
        super().on_message_complete()

    def on_response_complete(self):
        self.owed -= 1
        self.unanswered.popleft()
        if self.failure and not self.owed:
            return self.refuse(*self.failure)
        super().on_response_complete()
        if self.no_more and not self.owed:
            self.transport.close()
        self.expect()

    def timeout_keep_alive_handler(self):
        """Disables uvicorn's limit for idle connections; `expect` has its own limit."""

    def pause_writing(self):
        super().pause_writing()
        self.expect()

    def resume_writing(self):
        super().resume_writing()
        self.expect()


class Requests:
    """ASGI layer that logs one line for every bad request and answers 413 to a too long body.

    The application gets a body only when it is complete.
    """

    def __init__(self, app, limit):
        self.app = app
        self.limit = limit

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request, client = f"{scope['method']} {scope['path']}", scope["client"]
        status = None

        async def watch(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status is not None:  # with the first part of the body
                if status >= 400:
                    note(client, request, status, reason(message.get("body", b"")))
                status = None
            await send(message)

        await self.answer(scope, receive, watch)

    async def answer(self, scope, receive, send):
        declared = dict(scope["headers"]).get(b"content-length", b"")
        refused = declared.isdigit() and int(declared) > self.limit
        body, more = bytearray(), True
        if refused:
            await self.too_long(send)
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            more = message["more_body"]
            if refused:  # the client is still sending; read the rest and drop it
                continue
            body += message["body"]
            if len(body) > self.limit:
                refused = True
                await self.too_long(send)
        if refused:
            return await send({"type": "http.response.body"})
        parts = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay():
            return parts.pop() if parts else await receive()

        await self.app(scope, replay, send)

    async def too_long(self, send):
        """Send the answer without its end, because the end would close the connection."""
        status, headers, body = error_response(413, f"The body is longer than {self.limit} bytes.")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})


def reason(text):
    """The message in the JSON body of an error."""
    try:
        found = json.loads(text)
        return str(found.get("error") or found.get("detail") or found)
    except (ValueError, AttributeError):
        return text.decode("utf-8", "replace")
