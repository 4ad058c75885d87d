"""What keeps an HTTP server open for honest clients while others are slow, broken or many.

`guard(config, ...)` changes a `uvicorn.Config` before its server starts:

- A client has `patience` seconds for each thing the server waits for: the next request on an open
  connection, its head, its body, and the taking of its answer. Being late in a request is answered
  with 408.
- At most `connections` are open, fewer where the process may not open as many files. One more, and
  the one that has kept the server waiting longest is closed; never one whose request is being
  answered. Idle connections shut nobody out.
- A head is at most 64 KiB long (else 431), a body at most `body` bytes (else 413, said at once if
  the request declares its length).
- What is no HTTP, and what follows a good request without being one, gets 400 after the answers
  to the good ones. Errors are JSON, `{"error": ...}`.
- A bad request is one line in the log. A traceback there is a fault of the server.
"""

import collections
import functools
import http
import json
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 2**16  # bytes
OTHER_FILES = 100  # that a server has open beside its connections

# What a client is waited for.
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
        config: `uvicorn.Config`, not loaded; its `app` an ASGI application.
        patience: s.
        connections: largest number of open connections, 1 or more.
        body: longest body in bytes.
    """
    config.load()
    config.loaded_app = Requests(config.loaded_app, body)
    config.http_protocol_class = functools.partial(
        Connection, everyone=Everyone(patience, affordable(connections))
    )
    config.ws_protocol_class = None
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # `note` says what it warns of


def affordable(connections):
    """As many of them as the process may open, and what else it needs."""
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
    """One line about a bad request, whatever the client has put into it."""
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
    """The open connections, and those that keep the server waiting, the longest first."""

    def __init__(self, patience, most):
        self.patience = patience
        self.most = most
        self.open = set()
        self.waited_for = {}  # a dictionary keeps the order

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
        self.begun = self.in_body = False  # a request, and the body of one
        self.owed = 0  # answers to requests that have come completely
        self.unanswered = collections.deque()  # uvicorn's records of all requests not yet answered
        self.unread = 0  # bytes since the head began or the body went on
        self.failure = None  # status and message for what followed good requests
        self.no_more = False  # the client sends nothing more

    # --- what the server waits for ---------------------------------------------------------------

    def expect(self):
        """Find out what the client is waited for, and give it the time for that."""
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
        """Wait for nothing any more."""
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
        self.begun = self.in_body = False  # the client does not hang up, but is hung up on
        self.forget()
        self.read_no_more()
        self.transport.abort()

    def read_no_more(self):
        """Tell whoever reads or answers a request of this connection that the client is gone."""
        for cycle in self.unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    # --- errors ----------------------------------------------------------------------------------

    def unfinished(self):
        """Whether a request has begun that is neither complete nor answered."""
        return self.begun or (self.in_body and not self.cycle.response_started)

    def request(self):
        """The first line of the request that is being read, as far as known."""
        if not self.begun and not self.in_body and not self.owed:
            return "-"
        method = self.scope.get("method", "")
        return f"{method} {self.url.decode('latin-1')}".strip()

    def refuse(self, status, message):
        """Answer what cannot be a request, and wait for the client to go."""
        if self.transport.is_closing():
            return
        if self.in_body and self.cycle.response_started:  # refused before: its body is too long
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
        # Closed at once, the connection would be reset by what still comes, and the answer lost.
        self.transport.write_eof()
        self.wait_for(END)

    def send_400_response(self, message):
        """uvicorn's answer to what is no HTTP; its message does not say what to do."""
        self.fail(400, "This is no request of HTTP/1.1: look at its first lines and its lengths.")

    def fail(self, status, message):
        if self.owed:  # the good ones first
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
            return True  # a client that sends nothing more still gets its answers
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
        """uvicorn's limit to idle connections, in place of which `expect` has one."""

    def pause_writing(self):
        super().pause_writing()
        self.expect()

    def resume_writing(self):
        super().resume_writing()
        self.expect()


class Requests:
    """ASGI layer: one line for every bad request, and 413 for a body beyond the limit.

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
            if refused:  # read on, but keep nothing: the client is still sending
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
        """Answer at once, but for the end: that would close the connection."""
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
