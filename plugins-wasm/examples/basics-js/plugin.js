// The steps of `basics`, in JavaScript: they use every part of the contract, and the same tests run over all languages.

import { Transformer, invalidContent, invalidSpec, lazy, log, plugin, port, progress, sameAs, stored } from './ocm-plugin.js';

const BYTES = port('data', 'any bytes');

/** The schema of an object with these fields. */
const fields = (properties, required = []) => ({ type: 'object', additionalProperties: false, required, properties });

export class Identity extends Transformer {
  static type = 'Identity/v1alpha1';
  static documentation = 'Hands on what it gets.';
  static inputs = [BYTES];
  static outputs = [port('data', 'the same bytes')];
  static spec = fields({ way: { enum: ['same', 'splice', 'copy'], description: 'How the bytes go through.' } });
  static examples = ['- id: identity1\n  type: Identity/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    way: splice\n'];

  run(step) {
    // What is known of the input holds for the output: the host checks it.
    return { contents: { data: step.spec.way === 'same' ? sameAs('data') : lazy(step.input('data').info()) } };
  }

  transform(step, source, sink) {
    if (step.spec.way === 'splice') return sink.passOn(source);
    for (const chunk of source) sink.write(chunk);
  }
}

const ROTATED = Uint8Array.from({ length: 256 }, (_, byte) => {
  const letter = byte & 0x5f;
  if (letter < 65 || letter > 90 || byte & 0x80 || !(byte & 0x40)) return byte;
  return (byte & 0x20) | (((letter - 65 + 13) % 26) + 65);
});

export class Rot13 extends Transformer {
  static type = 'Rot13/v1alpha1';
  static documentation = 'Rotates ASCII letters by thirteen places.';
  static inputs = [BYTES];
  static outputs = [port('data', 'the rotated bytes')];
  static examples = ['- id: rot1\n  type: Rot13/v1alpha1\n  spec:\n    data: ${get1.output.data}\n'];

  transform(_step, source, sink) {
    for (const chunk of source) {
      for (let at = 0; at < chunk.length; at += 1) chunk[at] = ROTATED[chunk[at]];
      sink.write(chunk);
    }
  }
}

export class Count extends Transformer {
  static type = 'Count/v1alpha1';
  static documentation = `Counts bytes and lines.

The counts are values that other steps can use, so the bytes are read while the step runs.`;
  static inputs = [BYTES];
  static outputs = [port('data', 'the same bytes, kept by the host')];
  static output = fields(
    {
      bytes: { type: 'integer', description: 'Bytes of the input.' },
      lines: { type: 'integer', description: 'Line feeds among them.' },
    },
    ['bytes', 'lines'],
  );
  static examples = ['- id: count1\n  type: Count/v1alpha1\n  spec:\n    data: ${get1.output.data}\n'];

  run(step) {
    const output = { bytes: 0, lines: 0 };
    const input = step.input('data');
    const { mediaType, size } = input.info();
    const data = stored(mediaType, (sink) => {
      for (const chunk of input.open()) {
        output.bytes += chunk.length;
        for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) output.lines += 1;
        sink.write(chunk);
        progress('counted', output.bytes, size);
      }
    });
    log('debug', `${output.lines} lines`);
    return { output, contents: { data } };
  }
}

export class Split extends Transformer {
  static type = 'Split/v1alpha1';
  static documentation = 'Cuts bytes in two.';
  static inputs = [BYTES];
  static outputs = [port('head', 'the first bytes'), port('tail', 'the rest')];
  static spec = fields({ at: { type: 'integer', description: 'Where the second part starts, in bytes; 0 is refused.' } }, ['at']);
  static examples = ['- id: split1\n  type: Split/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    at: 10\n'];

  validate(spec) {
    return spec.at > 0 ? [] : [invalidSpec('the first part would be empty', '/at', 'write 1 or more')];
  }

  run(step) {
    const { mediaType } = step.input('data').info();
    // The place travels as state, though `produce` could read it from the spec: to show how.
    const part = lazy({ mediaType }, new TextEncoder().encode(step.spec.at));
    return { contents: { head: part, tail: part } };
  }

  produce(step, port, state, sink) {
    const at = Number(new TextDecoder().decode(state));
    const source = step.input('data').open();
    let seen = 0;
    for (const chunk of source) {
      const cut = Math.max(0, at - seen);
      seen += chunk.length;
      sink.write(port === 'head' ? chunk.subarray(0, cut) : chunk.subarray(cut));
      if (port === 'head' && seen >= at) return;
    }
    if (seen < at) throw invalidContent(`there are only ${seen} bytes`, { port: 'data', offset: seen });
  }
}

export class Broken extends Transformer {
  static type = 'Broken/v1alpha1';
  static documentation = 'Has a bug, to show how it is told.';
  static inputs = [BYTES];
  static outputs = [port('data', 'never whole')];
  static spec = fields({ how: { enum: ['lookup', 'write', 'return', 'throw', 'wait'], description: 'Which bug.' } });

  transform(step, source, sink) {
    sink.write(source.read(1));
    switch (step.spec.how) {
      case 'write':
        return sink.write(5);
      case 'return':
        return source.text();
      case 'throw':
        throw 'a text';
      case 'wait':
        return new Promise(() => {});
      default:
        sink.write({}.nothing.at(0));
    }
  }
}

export class Ambient extends Transformer {
  static type = 'Ambient/v1alpha1';
  static documentation = 'Tells what it can see of the world without being granted anything.';
  static output = fields({ time: { type: 'number' }, random: { type: 'number' }, zone: { type: 'integer' } });

  async run() {
    const digest = await crypto.subtle.digest('SHA-256', new Uint8Array(1));
    const [zone] = new Uint8Array(digest);
    return { output: { time: Date.now(), random: Math.random(), zone: new Date().getTimezoneOffset() + zone * 0 } };
  }
}

export const transform = plugin({
  name: 'basics-js',
  version: '0.1.0',
  documentation: 'The steps of `basics`, in JavaScript.',
  types: [Identity, Rot13, Count, Split, Broken, Ambient],
});
