"""A step type for ocm. The one function to fill is `transform`: it reads a stream and writes a stream."""

from ocm_plugin import Port, Transformer, invalid_spec, plugin


class @TYPE@(Transformer):
    """Replaces a word by another."""

    TYPE = "@TYPE@/v1alpha1"
    INPUTS = [Port("data", "a text, line by line")]
    OUTPUTS = [Port("data", "the changed text")]
    # Inputs of the step besides its ports. Descriptions are shown to users.
    SPEC = {
        "type": "object",
        "additionalProperties": False,
        "required": ["word", "by"],
        "properties": {
            "word": {"type": "string", "description": "The word that is replaced."},
            "by": {"type": "string", "description": "What stands in its place."},
        },
    }
    EXAMPLES = ["- id: replace1\n  type: @TYPE@/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    word: old\n    by: new\n"]

    def validate(self, spec, config):
        return [] if spec["word"] else [invalid_spec("this is no word", "/word")]

    def transform(self, step, source, sink):
        word, by = step.spec["word"].encode(), step.spec["by"].encode()
        for line in source:
            sink.write(line.replace(word, by))


Transform = plugin(name="@NAME@", version="0.1.0", documentation="Step types for ocm.", types=[@TYPE@])
