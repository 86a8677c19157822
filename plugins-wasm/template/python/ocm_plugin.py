"""For authors of ocm step types in Python: write a class, get a WebAssembly component.

A plugin that reads one stream and writes one stream implements `Transformer.transform` and is done:

    class Upper(Transformer):
        \"\"\"Makes letters big.\"\"\"
        TYPE = "AcmeUpper/v1alpha1"
        INPUTS = [Port("data", "any text")]
        OUTPUTS = [Port("data", "the same in capitals")]

        def transform(self, step, source, sink):
            for chunk in source.chunks():
                sink.write(chunk.upper())

    Transform = plugin(name="acme-upper", version="0.1.0", documentation="Letters.", types=[Upper])

`run` tries it on this machine, without WebAssembly. Raise `Error` for what is wrong; any other exception is told as a bug of
the plugin. A source that fails is an `Error` when it is read, never an early end.

This file belongs to the project and is not to be changed.
"""

import io
import json
import os
import sys

try:  # Only there inside of the component.
    import wit_world
    from componentize_py_types import Err
    from wit_world import exports
    from wit_world.exports import transform as _api
    from wit_world.imports import host as _host
    from wit_world.imports import streams as _streams
    from wit_world.imports import types as _types
except ImportError:
    wit_world = None
try:  # Only there for plugins that need `http`.
    from wit_world.imports import fetch as _fetch
except ImportError:
    _fetch = None

WINDOW = 256 << 10
"""What is asked for at once, in bytes: what the host gives at most."""

OBJECT = {"type": "object", "additionalProperties": False}
"""The schema of an object without fields."""

KINDS = ("invalid-spec", "invalid-content", "denied", "unavailable", "content-io", "internal")


class Error(Exception):
    """Why a step failed.

    `kind` is one of KINDS; `message` a fragment in lower case without a period; `field` a JSON pointer into the spec
    (`/rules/2/pattern`), from which the user gets file, line and column; `port` and `offset` a place in the content; `hint` what
    the user can do.
    """

    def __init__(self, kind, message, *, field=None, port=None, offset=None, hint=None):
        super().__init__(message)
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is none of {KINDS}")
        self.kind, self.message, self.field = kind, message, field
        self.port, self.offset, self.hint = port, offset, hint


def invalid_spec(message, field=None, hint=None):
    """The spec or the configuration is wrong, at this JSON pointer."""
    return Error("invalid-spec", message, field=field, hint=hint)


def invalid_content(message, port=None, offset=None, hint=None):
    """The bytes on an input are not what the step can work on."""
    return Error("invalid-content", message, port=port, offset=offset, hint=hint)


class Port:
    """A named place for bytes. `media_types` may end in `*`; none means any."""

    def __init__(self, name, documentation, required=True, media_types=()):
        self.name, self.documentation = name, documentation
        self.required, self.media_types = required, list(media_types)


class Need:
    """A right that the plugin asks for: `http` (of these hosts), `clock` or `random`, and why."""

    def __init__(self, capability, reason, scope=(), optional=False):
        self.capability, self.reason = capability, reason
        self.scope, self.optional = list(scope), optional


class Info:
    """What is known of content before it is read. The host checks what is stated."""

    def __init__(self, media_type="", size=None, digest=None):
        self.media_type, self.size, self.digest = media_type, size, digest


class Source(io.BufferedReader):
    """An input being read: `chunks()`, lines by iteration, `read(n)`, `read1(n)`, and all that takes a binary file."""

    def __init__(self, raw):
        super().__init__(raw, WINDOW)

    def chunks(self):
        """The bytes as they come, in pieces of at most 256 KiB."""
        while chunk := self.read1(WINDOW):
            yield chunk


class Sink(io.BufferedWriter):
    """An output being written. Gathers small writes; the kit hands over the rest when `transform` returns."""

    def __init__(self, raw):
        super().__init__(raw, 64 << 10)

    def pass_on(self, source):
        """Passes on all that is left of a source without looking at it: what was not read yet stays in the host."""
        pending = source.peek(0) if source.raw.started else b""
        self.write(source.read(len(pending)))
        self.flush()
        self.raw.splice(source.raw)


class Input:
    """Content on an input port. Holding it costs nothing."""

    def __init__(self, name, handle):
        self.name, self._handle = name, handle

    def info(self):
        """What is known of it."""
        return self._handle.info()

    def open(self):
        """Starts reading."""
        return Source(self._handle.open(self.name))


class Step:
    """One step: its id, its spec and the plugin's configuration as Python values, the inputs that were given."""

    def __init__(self, id, spec, config, inputs):
        self.id, self.spec, self.config, self.inputs = id, spec, config, inputs

    def input(self, name):
        """The content on a port."""
        for known in self.inputs:
            if known.name == name:
                return known
        raise invalid_spec(f"there is no `{name}`", f"/{name}")


class Outcome:
    """What a step came to: its output without ports, and where the content of each port comes from."""

    def __init__(self, output=None, contents=None):
        self.output = {} if output is None else output
        self.contents = {} if contents is None else contents


class SameAs:
    """The input of that name, unchanged: its bytes do not pass through the plugin."""

    def __init__(self, name):
        self.name = name


class Lazy:
    """Made by `produce` when somebody reads; `state` (at most 64 KiB) is handed to it."""

    def __init__(self, info, state=b""):
        self.info, self.state = info, state


class Stored:
    """Written now by `write(sink)` and kept by the host: for outputs that say something about the bytes."""

    def __init__(self, media_type, write):
        self.kept = _new_stored(media_type)
        sink = Sink(self.kept.sink())
        write(sink)
        _close(sink)


class Transformer:
    """One step type. Its docstring is its documentation, the first line the summary."""

    TYPE = ""
    """`Name/version`, as in `AcmeScrub/v1alpha1`."""
    INPUTS = []
    """Where bytes come in: fields of the step's spec besides those of SPEC."""
    OUTPUTS = []
    """Where bytes go out: fields of the step's output besides those of OUTPUT."""
    SPEC = OBJECT
    """JSON Schema (draft 2020-12) of the spec without ports. Its descriptions are shown to users."""
    OUTPUT = OBJECT
    """The same of the output."""
    DETERMINISTIC = True
    """Do the same spec, configuration and inputs always give the same output and bytes?"""
    EXAMPLES = []
    """Complete steps in YAML (`- id: …`)."""

    def validate(self, spec, config):
        """Gives the errors that a schema can't find: a list of `Error`. Called while planning, too."""
        return []

    def run(self, step):
        """Decides what the step gives. As it stands here: every output is made when somebody reads it."""
        media_type = step.inputs[0].info().media_type if step.inputs else ""
        return Outcome(contents={port.name: Lazy(Info(media_type)) for port in self.OUTPUTS})

    def produce(self, step, port, state, sink):
        """Writes the bytes of one output. As it stands here: `transform` from the first input."""
        if not step.inputs:
            raise Error("internal", "a step without input implements `produce`")
        self.transform(step, step.inputs[0].open(), sink)

    def transform(self, step, source, sink):
        """Reads a stream and writes a stream."""
        raise Error("internal", f"{self.TYPE} implements neither `transform` nor `produce`")


def log(level, message):
    """One line for the log of the run: `trace`, `debug`, `info`, or `warn`, which is shown as a warning of the step."""
    if wit_world:
        _host.log(getattr(_host.Level, level.upper()), message)


def progress(message, done, total=None):
    """A sign of life from long work that moves no bytes."""
    if wit_world:
        _host.progress(message, done, total)


class Response:
    """An answer: its `status` (any), its `headers` (pairs) and its `body`, a `Source`."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


def request(url, method=None, headers=None, body=None):
    """Makes an HTTPS request through the host, which checks the URL, adds credentials and repeats.

    For plugins with `Need("http", …)`. `headers` is a dict, `body` bytes, at most 4 MiB; a request with one is a POST if
    `method` says nothing else.
    """
    if not _fetch:
        raise Error("internal", "requests are made by ocm, for plugins that need `http`")
    method = method or ("GET" if body is None else "POST")
    length = None if body is None else len(body)
    try:
        exchange = _fetch.Exchange(_fetch.Request(method, url, list((headers or {}).items()), length))
        if body is not None:
            raw = _RawSink(exchange.body())
            raw.write(body)
            raw.release()
        answer = exchange.response()
    except Err as error:
        raise _from_host(error.value)
    return Response(answer.status, answer.headers, Source(_RawSource(answer.body, "fetch")))


class Plugin:
    """A plugin, before it is made into what the host calls."""

    def __init__(self, name, version, documentation, types, needs=(), config=None):
        self.name, self.version, self.documentation = name, version, documentation
        self.types, self.needs, self.config = [made() for made in types], list(needs), config

    def find(self, name):
        for known in self.types:
            if known.TYPE == name:
                return known
        raise Error("internal", f"there is no step type `{name}` in this plugin")

    def validate(self, step_type, spec, config):
        return list(self.find(step_type).validate(json.loads(spec), _config(config)))

    def run(self, step_type, step):
        return self.find(step_type).run(step)

    def produce(self, step_type, step, port, state, raw):
        sink = Sink(raw)
        try:
            self.find(step_type).produce(step, port, state, sink)
            sink.flush()
        except BaseException:
            # What was gathered is not to be written any more, not even when the sink is collected.
            raw.broken = True
            raise


def plugin(**named):
    """Makes a plugin of step types: assign it to `Transform`, at the end of the module."""
    made = Plugin(**named)
    return _exported(made) if wit_world else made


def _config(text):
    return json.loads(text) if text else {}


def _close(sink):
    sink.flush()
    sink.raw.release()


def _told(error):
    """Any exception as an `Error`; one that is none is a bug, and says where."""
    if isinstance(error, Error):
        return error
    where, trace = "", error.__traceback__
    while trace:
        where = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return Error("internal", f"{type(error).__name__} at {where}: {error}")


class _Chunks(io.RawIOBase):
    """A source whose bytes come from `next_chunk`: an empty one is the end."""

    started = False

    def readable(self):
        return True

    def readinto(self, buffer):
        self.started = True
        chunk = self.next_chunk(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


# The side of the host.


class _RawSource(_Chunks):
    def __init__(self, stream, port):
        self.stream, self.port = stream, port

    def next_chunk(self, count):
        try:
            return self.stream.blocking_read(min(count, WINDOW))
        except Err as error:
            if isinstance(error.value, _streams.StreamError_Closed):
                return b""
            raise _io_error("read", error, self.port)


class _RawSink(io.RawIOBase):
    def __init__(self, stream):
        self.stream, self.broken = stream, False

    def writable(self):
        return True

    def write(self, data):
        if self.broken or self.stream is None:
            return len(data)
        rest = bytes(data)
        try:
            # Never more than the host allows: that would be a trap.
            while rest:
                permit = self.stream.check_write()
                if permit == 0:
                    with self.stream.subscribe() as ready:
                        ready.block()
                    continue
                self.stream.write(rest[:permit])
                rest = rest[permit:]
        except Err as error:
            raise _io_error("write", error, None)
        return len(data)

    def splice(self, raw):
        try:
            while True:
                self.stream.blocking_splice(raw.stream, WINDOW)
        except Err as error:
            if not isinstance(error.value, _streams.StreamError_Closed):
                raise _io_error("read", error, raw.port)
        # Which of the two ended? The source says it again when asked.
        if rest := raw.next_chunk(WINDOW):
            self.write(rest)

    def release(self):
        if self.stream is not None:
            self.stream.__exit__(None, None, None)
            self.stream = None


class _Handle:
    def __init__(self, content):
        self.content = content

    def info(self):
        info = self.content.info()
        return Info(info.media_type, info.size, info.digest)

    def open(self, name):
        try:
            return _RawSource(self.content.open(0), name)
        except Err as error:
            raise _from_host(error.value, port=name)


class _Kept:
    def __init__(self, media_type):
        self.stored = _host.Stored(media_type)

    def sink(self):
        return _RawSink(self.stored.sink())


def _new_stored(media_type):
    return _Kept(media_type) if wit_world else _KeptInMemory()


def _from_host(told, port=None):
    kind = told.kind.name.lower().replace("_", "-")
    return Error(kind, told.message, field=told.field, port=port or told.port, offset=told.offset, hint=told.hint)


def _io_error(what, error, port):
    closed = isinstance(error.value, _streams.StreamError_Closed)
    why = "closed" if closed else error.value.value.to_debug_string()
    return Error("content-io", f"{what}: {why}", port=port)


def _exported(made):
    """What the host calls, over a plugin."""

    def raised(error):
        told = _told(error)
        kind = getattr(_types.ErrorKind, told.kind.upper().replace("-", "_"))
        return _types.StepError(kind, told.message, told.field, told.port, told.offset, told.hint)

    def step(given):
        inputs = [Input(port.name, _Handle(port.content)) for port in given.inputs]
        return Step(given.id, json.loads(given.spec), _config(given.config), inputs)

    def port(known):
        return _types.Port(known.name, known.documentation, known.required, known.media_types)

    def step_type(known):
        name, _, version = known.TYPE.partition("/")
        return _types.StepType(
            name,
            version,
            (type(known).__doc__ or "").strip(),
            json.dumps(known.SPEC),
            json.dumps(known.OUTPUT),
            [port(each) for each in known.INPUTS],
            [port(each) for each in known.OUTPUTS],
            known.DETERMINISTIC,
            list(known.EXAMPLES),
        )

    def need(known):
        capability = getattr(_types.Capability, known.capability.upper())
        return _types.Need(capability, known.scope, known.reason, known.optional)

    def content(given):
        if isinstance(given, SameAs):
            return _api.Content_SameAs(given.name)
        if isinstance(given, Stored):
            return _api.Content_Stored(given.kept.stored)
        info = _types.ContentInfo(given.info.media_type, given.info.size, given.info.digest)
        return _api.Content_Lazy(_api.LazyContent(info, given.state))

    class Transform(exports.Transform):
        def describe(self):
            config = json.dumps(made.config) if made.config else ""
            steps = [step_type(known) for known in made.types]
            needs = [need(known) for known in made.needs]
            return _types.Plugin(made.name, made.version, made.documentation, config, needs, steps)

        def validate(self, step_type, spec, config):
            try:
                return [raised(error) for error in made.validate(step_type, spec, config)]
            except Exception as error:
                return [raised(error)]

        def run(self, given):
            try:
                outcome = made.run(given.step_type, step(given))
                contents = [_api.OutputPort(name, content(each)) for name, each in outcome.contents.items()]
                return _api.Outcome(json.dumps(outcome.output), contents)
            except Exception as error:
                raise Err(raised(error))

        def produce(self, given, port, state, sink):
            raw = _RawSink(sink)
            try:
                made.produce(given.step_type, step(given), port, state, raw)
            except Exception as error:
                raise Err(raised(error))
            finally:
                raw.release()

    return Transform


# The side of tests: the same over memory.


class _MemorySource(_Chunks):
    def __init__(self, data, chunk):
        self.data, self.chunk = data, chunk

    def next_chunk(self, count):
        count = min(count, self.chunk)
        chunk, self.data = self.data[:count], self.data[count:]
        return chunk


class _MemorySink(io.RawIOBase):
    def __init__(self):
        self.data, self.broken = bytearray(), False

    def writable(self):
        return True

    def write(self, data):
        if not self.broken:
            self.data += data
        return len(data)

    def splice(self, raw):
        while chunk := raw.next_chunk(WINDOW):
            self.write(chunk)

    def release(self):
        pass


class _KeptInMemory:
    def __init__(self):
        self.raw = _MemorySink()

    def sink(self):
        return self.raw


class _MemoryHandle:
    def __init__(self, data, chunk):
        self.data, self.chunk = data, chunk

    def info(self):
        return Info("application/octet-stream", len(self.data))

    def open(self, _name):
        return _MemorySource(self.data, self.chunk)


def run(step_type, spec, inputs, config=None, chunk=64 << 10):
    """Validates and runs a step over memory, then reads every output: gives the output and the bytes by port.

    `inputs` are bytes by port; `chunk` is how many arrive at once, which no result must depend on. Raises the first `Error`.
    """
    made, text = step_type(), json.dumps(spec)
    config = {} if config is None else config

    def step():
        given = [Input(port.name, _MemoryHandle(inputs[port.name], chunk)) for port in made.INPUTS if port.name in inputs]
        return Step("test1", json.loads(text), config, given)

    for error in made.validate(json.loads(text), config):
        raise error
    outcome, contents = made.run(step()), {}
    for name, content in outcome.contents.items():
        if isinstance(content, SameAs):
            contents[name] = inputs[content.name]
        elif isinstance(content, Stored):
            contents[name] = bytes(content.kept.raw.data)
        else:
            raw = _MemorySink()
            sink = Sink(raw)
            made.produce(step(), name, content.state, sink)
            sink.flush()
            contents[name] = bytes(raw.data)
    return json.loads(json.dumps(outcome.output)), contents
