"""The steps of `basics`, in Python: they use every part of the contract, and the same tests run over both."""

from ocm_plugin import Info, Lazy, Outcome, Port, SameAs, Stored, Transformer
from ocm_plugin import invalid_content, invalid_spec, log, plugin, progress

BYTES = Port("data", "any bytes")


def fields(required=(), **properties):
    """The schema of an object with these fields."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


class Identity(Transformer):
    """Hands on what it gets."""

    TYPE = "Identity/v1alpha1"
    INPUTS = [BYTES]
    OUTPUTS = [Port("data", "the same bytes")]
    SPEC = fields(way={"enum": ["same", "splice", "copy"], "description": "How the bytes go through."})
    EXAMPLES = ["- id: identity1\n  type: Identity/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    way: splice\n"]

    def run(self, step):
        if step.spec.get("way") == "same":
            return Outcome(contents={"data": SameAs("data")})
        # What is known of the input holds for the output: the host checks it.
        return Outcome(contents={"data": Lazy(step.input("data").info())})

    def transform(self, step, source, sink):
        if step.spec.get("way") == "splice":
            sink.pass_on(source)
            return
        for chunk in source.chunks():
            sink.write(chunk)


LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROTATED = LETTERS[13:] + LETTERS[:13]
TABLE = bytes.maketrans(LETTERS + LETTERS.lower(), ROTATED + ROTATED.lower())


class Rot13(Transformer):
    """Rotates ASCII letters by thirteen places."""

    TYPE = "Rot13/v1alpha1"
    INPUTS = [BYTES]
    OUTPUTS = [Port("data", "the rotated bytes")]
    EXAMPLES = ["- id: rot1\n  type: Rot13/v1alpha1\n  spec:\n    data: ${get1.output.data}\n"]

    def transform(self, step, source, sink):
        for chunk in source.chunks():
            sink.write(chunk.translate(TABLE))


class Count(Transformer):
    """Counts bytes and lines.

    The counts are values that other steps can use, so the bytes are read while the step runs.
    """

    TYPE = "Count/v1alpha1"
    INPUTS = [BYTES]
    OUTPUTS = [Port("data", "the same bytes, kept by the host")]
    OUTPUT = fields(
        ["bytes", "lines"],
        bytes={"type": "integer", "description": "Bytes of the input."},
        lines={"type": "integer", "description": "Line feeds among them."},
    )
    EXAMPLES = ["- id: count1\n  type: Count/v1alpha1\n  spec:\n    data: ${get1.output.data}\n"]

    def run(self, step):
        counted = {"bytes": 0, "lines": 0}
        content = step.input("data")

        def write(sink):
            for chunk in content.open().chunks():
                counted["bytes"] += len(chunk)
                counted["lines"] += chunk.count(b"\n")
                sink.write(chunk)
                progress("counted", counted["bytes"], content.info().size)

        stored = Stored(content.info().media_type, write)
        log("debug", f"{counted['lines']} lines")
        return Outcome(counted, {"data": stored})


class Split(Transformer):
    """Cuts bytes in two."""

    TYPE = "Split/v1alpha1"
    INPUTS = [BYTES]
    OUTPUTS = [Port("head", "the first bytes"), Port("tail", "the rest")]
    SPEC = fields(["at"], at={"type": "integer", "description": "Where the second part starts, in bytes; 0 is refused."})
    EXAMPLES = ["- id: split1\n  type: Split/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    at: 10\n"]

    def validate(self, spec, config):
        return [] if spec["at"] > 0 else [invalid_spec("the first part would be empty", "/at", "write 1 or more")]

    def run(self, step):
        # The place travels as state, though `produce` could read it from the spec: to show how.
        info, state = Info(step.input("data").info().media_type), str(step.spec["at"]).encode()
        return Outcome(contents={"head": Lazy(info, state), "tail": Lazy(info, state)})

    def produce(self, step, port, state, sink):
        at, seen = int(state), 0
        for chunk in step.input("data").open().chunks():
            cut = max(0, at - seen)
            seen += len(chunk)
            sink.write(chunk[:cut] if port == "head" else chunk[cut:])
            if port == "head" and seen >= at:
                return
        if seen < at:
            raise invalid_content(f"there are only {seen} bytes", "data", seen)


class Broken(Transformer):
    """Has a bug, to show how it is told."""

    TYPE = "Broken/v1alpha1"
    INPUTS = [BYTES]
    OUTPUTS = [Port("data", "never whole")]

    def transform(self, step, source, sink):
        sink.write(source.read(1))
        sink.write({}["nothing"])


Transform = plugin(
    name="basics-python",
    version="0.1.0",
    documentation="The steps of `basics`, in Python.",
    types=[Identity, Rot13, Count, Split, Broken],
)
