/**
 * For authors of ocm step types in JavaScript: write a class, get a WebAssembly component.
 *
 * A plugin that reads one stream and writes one stream implements `transform` and is done:
 *
 *     class Upper extends Transformer {
 *       static type = 'AcmeUpper/v1alpha1';
 *       static documentation = 'Makes letters big.';
 *       static inputs = [port('data', 'any text')];
 *       static outputs = [port('data', 'the same in capitals')];
 *       transform(step, source, sink) {
 *         for (const line of source.lines()) sink.write(line.toUpperCase());
 *       }
 *     }
 *     export const transform = plugin({ name: 'acme-upper', version: '0.1.0', documentation: 'Letters.', types: [Upper] });
 *
 * `run` tries it on this machine, without WebAssembly. Throw a `StepError` for what is wrong; anything else that is thrown is told
 * as a bug of the plugin. A source that fails throws when it is read; it never looks like the end. What a class implements may be
 * `async`, though nothing that ocm offers has to be waited for.
 *
 * This file belongs to the project and is not to be changed.
 */

/** What is asked for at once, in bytes: what the host gives at most. */
const WINDOW = 256 * 1024;
/** What small writes are gathered to, in bytes. */
const GATHER = 64 * 1024;
const LINE_FEED = 10;

/** The schema of an object without fields. */
export const OBJECT = { type: 'object', additionalProperties: false };

const KINDS = ['invalid-spec', 'invalid-content', 'denied', 'unavailable', 'content-io', 'internal'];

/**
 * Why a step failed. `kind` is one of KINDS, `message` a fragment in lower case without a period. Of the rest, `field` is a JSON
 * pointer into the spec (`/rules/2/pattern`), from which the user gets file, line and column; `port` and `offset` are a place in the
 * content; `hint` is what the user can do.
 */
export class StepError extends Error {
  constructor(kind, message, { field, port, offset, hint } = {}) {
    super(message);
    if (!KINDS.includes(kind)) throw new TypeError(`${kind} is none of ${KINDS}`);
    Object.assign(this, { kind, field, port, offset, hint });
  }
}

/** The spec or the configuration is wrong, at this JSON pointer. */
export const invalidSpec = (message, field, hint) => new StepError('invalid-spec', message, { field, hint });

/** The bytes on an input are not what the step can work on. */
export const invalidContent = (message, place = {}) => new StepError('invalid-content', message, place);

/** A named place for bytes. `mediaTypes` may end in `*`; none means any. */
export const port = (name, documentation, { required = true, mediaTypes = [] } = {}) => ({ name, documentation, required, mediaTypes });

/** A right that the plugin asks for: `http` (of these hosts), `clock` or `random`, and why. */
export const need = (capability, reason, { scope = [], optional = false } = {}) => ({ capability, reason, scope, optional });

/**
 * An input being read: an iterable of chunks (`Uint8Array`, at most 256 KiB), or of lines. The ways of reading can be mixed: each
 * goes on where the one before stopped.
 */
export class Source {
  /** Lines that were decoded and not handed out yet, from the one at `#next`; behind them, chunks that were not decoded yet. */
  #lines = [];
  #next = 0;
  #chunks = [];
  #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(raw) {
    this.raw = raw;
  }

  /** The next bytes, as they come; `undefined` at the end. */
  nextChunk() {
    return this.held() ?? this.raw.next();
  }

  /** The next bytes of those that were taken from the host already, if there are such. For `Sink.passOn`. */
  held() {
    if (this.#next < this.#lines.length) {
      this.#chunks.unshift(new TextEncoder().encode(this.#lines.slice(this.#next).join('')));
    }
    this.#lines = [];
    this.#next = 0;
    return this.#chunks.shift();
  }

  *[Symbol.iterator]() {
    for (let chunk; (chunk = this.nextChunk()); ) yield chunk;
  }

  /** The lines as texts, with their ends. Bytes that are not UTF-8 are an error. */
  *lines() {
    for (;;) {
      while (this.#next < this.#lines.length) yield this.#lines[this.#next++];
      if (!this.#decodeMore()) return;
    }
  }

  /** Decodes up to the last line feed there is, or all if nothing more comes. Is there more? */
  #decodeMore() {
    let end = -1;
    const held = this.#chunks;
    while (end < 0) {
      const chunk = this.raw.next();
      if (!chunk) break;
      held.push(chunk);
      end = chunk.lastIndexOf(LINE_FEED);
    }
    const last = end < 0 ? undefined : held.pop();
    const bytes = joined(last ? [...held, last.subarray(0, end + 1)] : held);
    this.#chunks = last && end + 1 < last.length ? [last.subarray(end + 1)] : [];
    this.#lines = this.#decoded(bytes).split('\n');
    this.#next = 0;
    const open = this.#lines.pop();
    this.#lines = this.#lines.map((line) => `${line}\n`);
    if (open) this.#lines.push(open);
    return this.#lines.length > 0;
  }

  #decoded(bytes) {
    try {
      return this.#decoder.decode(bytes);
    } catch {
      throw invalidContent('this is not UTF-8', { port: this.raw.port });
    }
  }

  /** The first `count` of the bytes to come, fewer only at the end. */
  read(count) {
    const parts = [];
    while (count > 0) {
      const chunk = this.nextChunk();
      if (!chunk) break;
      parts.push(chunk.subarray(0, count));
      if (chunk.length > count) this.#chunks.unshift(chunk.subarray(count));
      count -= Math.min(count, chunk.length);
    }
    return joined(parts);
  }

  /** All that is left. More than `limit` bytes are an error: it has to fit into memory. */
  bytes(limit = 64 * 1024 * 1024) {
    const parts = [];
    let length = 0;
    for (const chunk of this) {
      length += chunk.length;
      if (length > limit) throw invalidContent(`it has more than ${limit} bytes`, { port: this.raw.port });
      parts.push(chunk);
    }
    return joined(parts);
  }

  /** The same as a text. Bytes that are not UTF-8 are an error. */
  text(limit) {
    return this.#decoded(this.bytes(limit));
  }
}

/** An output being written: bytes or texts. Gathers small writes; the kit hands over the rest when `transform` is done. */
export class Sink {
  #gathered = new Uint8Array(GATHER);
  #length = 0;
  /** What was written as texts behind that. */
  #text = '';

  constructor(raw) {
    this.raw = raw;
  }

  write(data) {
    if (typeof data === 'string') {
      this.#text += data;
      if (this.#text.length >= GATHER) this.flush();
      return;
    }
    if (!isBytes(data)) throw new TypeError(`texts and Uint8Arrays are written, not ${kindOf(data)}`);
    this.#encode();
    this.#gather(data);
  }

  #encode() {
    const text = this.#text;
    this.#text = '';
    if (text) this.#gather(new TextEncoder().encode(text));
  }

  #gather(bytes) {
    if (this.#length + bytes.length > GATHER) this.#hand();
    if (bytes.length >= GATHER) {
      this.raw.write(bytes);
    } else {
      this.#gathered.set(bytes, this.#length);
      this.#length += bytes.length;
    }
  }

  #hand() {
    const length = this.#length;
    this.#length = 0;
    if (length) this.raw.write(this.#gathered.subarray(0, length));
  }

  /** Hands over what was gathered. */
  flush() {
    this.#encode();
    this.#hand();
  }

  /** Passes on all that is left of a source: bytes that were not read yet stay in the host. Much faster than a loop over chunks. */
  passOn(source) {
    for (let chunk; (chunk = source.held()); ) this.write(chunk);
    this.flush();
    this.raw.splice(source.raw);
  }
}

/** Content on an input port. Holding it costs nothing. */
export class Input {
  constructor(name, handle) {
    this.name = name;
    this.handle = handle;
  }

  /** What is known of it: `mediaType`, `size` and `digest`, the latter two if they are. */
  info() {
    return this.handle.info();
  }

  /** Starts reading. */
  open() {
    return new Source(this.handle.open(this.name));
  }
}

/** One step: `id`, `spec` and the plugin's `config` as values, the `inputs` that were given. */
export class Step {
  constructor(id, spec, config, inputs) {
    Object.assign(this, { id, spec, config, inputs });
  }

  /** The content on a port. */
  input(name) {
    const found = this.inputs.find((input) => input.name === name);
    if (!found) throw invalidSpec(`there is no \`${name}\``, `/${name}`);
    return found;
  }
}

/** The input of that name, unchanged: its bytes do not pass through the plugin. */
export const sameAs = (name) => ({ sameAs: name });

/** Made by `produce` when somebody reads; `state` (bytes, at most 64 KiB) is handed to it. `info`: see `Input.info`. */
export const lazy = (info, state = new Uint8Array()) => ({ info, state });

/** Written now by `write(sink)` and kept by the host: for outputs that say something about the bytes. To be awaited if `write` is. */
export function stored(mediaType, write) {
  const kept = host ? new Kept(mediaType) : new MemorySink();
  const raw = kept.open();
  const sink = new Sink(raw);
  const done = () => {
    sink.flush();
    raw.release();
    return { kept };
  };
  const written = write(sink);
  return typeof written?.then === 'function' ? written.then(done) : done();
}

/** One step type. */
export class Transformer {
  /** `Name/version`, as in `AcmeScrub/v1alpha1`. */
  static type = '';
  /** Markdown; the first line is the summary. */
  static documentation = '';
  /** Where bytes come in: fields of the step's spec besides those of `spec`. */
  static inputs = [];
  /** Where bytes go out: fields of the step's output besides those of `output`. */
  static outputs = [];
  /** JSON Schema (draft 2020-12) of the spec without ports. Its descriptions are shown to users. */
  static spec = OBJECT;
  /** The same of the output. */
  static output = OBJECT;
  /** Do the same spec, configuration and inputs always give the same output and bytes? */
  static deterministic = true;
  /** Complete steps in YAML (`- id: …`). */
  static examples = [];

  /** Gives the errors that a schema can't find. Called while planning, too. */
  validate(_spec, _config) {
    return [];
  }

  /** Decides what the step gives. As it stands here: every output is made when somebody reads it. */
  run(step) {
    const mediaType = step.inputs[0]?.info().mediaType ?? '';
    const contents = this.constructor.outputs.map(({ name }) => [name, lazy({ mediaType })]);
    return { output: {}, contents: Object.fromEntries(contents) };
  }

  /** Writes the bytes of one output. As it stands here: `transform` from the first input. */
  produce(step, _port, _state, sink) {
    if (!step.inputs.length) throw new StepError('internal', 'a step without input implements `produce`');
    return this.transform(step, step.inputs[0].open(), sink);
  }

  /** Reads a stream and writes a stream. */
  transform(_step, _source, _sink) {
    throw new StepError('internal', `${this.constructor.type} implements neither \`transform\` nor \`produce\``);
  }
}

/** One line for the log of the run: `trace`, `debug`, `info`, or `warn`, which is shown as a warning of the step. */
export function log(level, message) {
  host?.log(level, message);
}

/** A sign of life from long work that moves no bytes. */
export function progress(message, done, total) {
  host?.progress(message, BigInt(done), total === undefined ? undefined : BigInt(total));
}

/**
 * Makes an HTTPS request through the host, which checks the URL, adds credentials and repeats: gives `status` (any), `headers` (pairs)
 * and `body`, a `Source`. For plugins that ask for the right `http` in their `needs`; `body` is a text or bytes, at most 4 MiB.
 */
export function request(url, { method, headers = {}, body } = {}) {
  if (!requests) throw new StepError('internal', 'requests are made by ocm, for plugins that need `http`');
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body;
  try {
    const exchange = new requests.Exchange({
      method: method ?? (bytes ? 'POST' : 'GET'),
      url,
      headers: Object.entries(headers),
      contentLength: bytes && BigInt(bytes.length),
    });
    if (bytes) {
      const raw = new RawSink(exchange.body());
      raw.write(bytes);
      raw.release();
    }
    const answer = exchange.response();
    return { status: answer.status, headers: answer.headers, body: new Source(new RawSource(answer.body, 'fetch')) };
  } catch (error) {
    throw fromHost(error);
  }
}

/** Makes a plugin of step types: export it as `transform`. `config` is the schema of its configuration, if it takes one. */
export function plugin({ name, version, documentation, types, needs = [], config }) {
  const find = (type) => {
    const found = types.find((known) => known.type === type);
    if (!found) throw new StepError('internal', `there is no step type \`${type}\` in this plugin`);
    return new found();
  };
  const step = (given) => {
    const inputs = given.inputs.map((input) => new Input(input.name, new Handle(input.content)));
    return new Step(given.id, JSON.parse(given.spec), parsed(given.config), inputs);
  };
  return {
    describe() {
      const steps = types.map((known) => {
        const [name, version] = known.type.split('/');
        const { documentation, inputs, outputs, deterministic, examples } = known;
        const schemas = { specSchema: JSON.stringify(known.spec), outputSchema: JSON.stringify(known.output) };
        return { name, version, documentation, ...schemas, inputs, outputs, deterministic, examples };
      });
      return { name, version, documentation, configSchema: config ? JSON.stringify(config) : '', needs, steps };
    },
    async validate(type, spec, config) {
      try {
        return (await find(type).validate(JSON.parse(spec), parsed(config))).map(told);
      } catch (error) {
        return [told(error)];
      }
    },
    run(given) {
      return telling(async () => {
        const { output, contents } = await decided(find(given.stepType), step(given));
        const ports = contents.map(([name, content]) => ({ name, content: lowered(content) }));
        return { output: JSON.stringify(output), contents: ports };
      });
    },
    produce(given, port, state, stream) {
      return telling(() => produced(find(given.stepType), step(given), port, state, new RawSink(stream)));
    },
  };
}

const parsed = (text) => (text ? JSON.parse(text) : {});

/** What a step gives, with its contents as pairs. */
async function decided(made, step) {
  const { output = {}, contents = {} } = (await made.run(step)) ?? {};
  const pairs = [];
  for (const [name, content] of Object.entries(contents)) pairs.push([name, checked(name, await content)]);
  return { output, contents: pairs };
}

function checked(name, content) {
  const { sameAs, kept, info } = content ?? {};
  if (sameAs === undefined && !kept && !info) {
    throw new TypeError(`the content of ${name} is ${kindOf(content)}: sameAs, lazy and stored make contents`);
  }
  return content;
}

/** Writes an output. What `produce` gives back would be lost: somebody thought that it is written. */
async function produced(made, step, port, state, raw) {
  const sink = new Sink(raw);
  const lost = await made.produce(step, port, state, sink);
  if (lost !== undefined) throw new TypeError(`what is to be written goes to sink.write; ${kindOf(lost)} was returned`);
  sink.flush();
  raw.release();
}

// What the host gives was made elsewhere: `instanceof` knows nothing of it.
const isBytes = (value) => ArrayBuffer.isView(value) && value.BYTES_PER_ELEMENT === 1;
const isError = (value) => Object.prototype.toString.call(value) === '[object Error]';
const kindOf = (value) => (Object(value) === value ? (value.constructor?.name ?? 'object') : value === null ? 'null' : typeof value);

/** Anything that was thrown as a record of the contract; what is no `StepError` is a bug, and says where. */
function told(error) {
  if (!(error instanceof StepError)) error = new StepError('internal', bug(error));
  const { kind, message, field, port, offset, hint } = error;
  return { kind, message, field, port, offset: offset === undefined ? undefined : BigInt(offset), hint };
}

function bug(error) {
  if (!isError(error)) return `${kindOf(error)} was thrown: ${error}`;
  const places = error.stack?.match(/[\w.-]+\.m?js:\d+/g) ?? [];
  // Not where the kit noticed it, but where it comes from.
  const place = places.find((place) => !/^(ocm-plugin|initializer)\./.test(place)) ?? places[0];
  return `${error.name}${place ? ` at ${place}` : ''}: ${error.message}`;
}

/** What is thrown reaches the host as it is: it must be a record of the contract. */
async function telling(call) {
  try {
    return await call();
  } catch (error) {
    throw told(error);
  }
}

function lowered({ sameAs, kept, info, state }) {
  if (sameAs !== undefined) return { tag: 'same-as', val: sameAs };
  if (kept) return { tag: 'stored', val: kept.stored };
  const size = info.size === undefined ? undefined : BigInt(info.size);
  return { tag: 'lazy', val: { info: { mediaType: info.mediaType, size, digest: info.digest }, state } };
}

function joined(parts) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// The side of the host.

/** The host's functions: there inside of the component only; `requests` for plugins only that need `http`. */
let host, requests;

/** Gives the kit the host's functions: done in `component.js`. */
export function connect(functions, fetch) {
  host = functions;
  requests = fetch;
}

/** An error that the host says in words of the contract. */
function fromHost(error, place = {}) {
  const { kind, message, ...rest } = error.payload ?? {};
  return kind === undefined ? error : new StepError(kind, message, { ...rest, ...place });
}

function ioError(what, error, port) {
  if (!error.payload) return error;
  const why = error.payload.val?.toDebugString() ?? 'closed';
  return new StepError('content-io', `${what}: ${why}`, { port });
}

const isClosed = (error) => error.payload?.tag === 'closed';

/** Gives back what the host counts, now and not when the collector comes by. */
const release = (resource) => resource?.[Symbol.dispose ?? Symbol.for('dispose')]();

class Handle {
  constructor(content) {
    this.content = content;
  }

  info() {
    const { mediaType, size, digest } = this.content.info();
    return { mediaType, size: size === undefined ? undefined : Number(size), digest };
  }

  open(port) {
    try {
      return new RawSource(this.content.open(0n), port);
    } catch (error) {
      throw fromHost(error, { port });
    }
  }
}

class RawSource {
  constructor(stream, port) {
    this.stream = stream;
    this.port = port;
  }

  next() {
    if (!this.stream) return undefined;
    try {
      return this.stream.blockingRead(BigInt(WINDOW));
    } catch (error) {
      if (!isClosed(error)) throw ioError('read', error, this.port);
      release(this.stream);
      this.stream = undefined;
      return undefined;
    }
  }
}

class RawSink {
  constructor(stream) {
    this.stream = stream;
  }

  /** Never more than the host allows: that would be a trap. */
  write(bytes) {
    try {
      for (let at = 0; at < bytes.length; ) {
        const permit = Number(this.stream.checkWrite());
        if (permit === 0) {
          this.ready ??= this.stream.subscribe();
          this.ready.block();
          continue;
        }
        const part = bytes.subarray(at, at + permit);
        this.stream.write(part);
        at += part.length;
      }
    } catch (error) {
      throw ioError('write', error);
    }
  }

  splice(source) {
    try {
      while (source.stream) this.stream.blockingSplice(source.stream, BigInt(WINDOW));
    } catch (error) {
      if (!isClosed(error)) throw ioError('read', error, source.port);
    }
    // Which of the two ended? The source says it again when asked.
    const rest = source.next();
    if (rest) this.write(rest);
  }

  /** The pollable first: it belongs to the stream. */
  release() {
    release(this.ready);
    release(this.stream);
    this.ready = this.stream = undefined;
  }
}

class Kept {
  constructor(mediaType) {
    this.stored = new host.Stored(mediaType);
  }

  open() {
    return new RawSink(this.stored.sink());
  }
}

// The side of tests: the same over memory.

class MemorySource {
  constructor(data, chunk, port) {
    Object.assign(this, { data, chunk, port, at: 0 });
  }

  next() {
    const part = this.data.slice(this.at, this.at + this.chunk);
    this.at += part.length;
    return part.length ? part : undefined;
  }
}

class MemorySink {
  parts = [];

  open() {
    return this;
  }

  write(bytes) {
    this.parts.push(bytes.slice());
  }

  splice(source) {
    for (let chunk; (chunk = source.next()); ) this.write(chunk);
  }

  release() {}

  bytes() {
    return joined(this.parts);
  }
}

const encoded = (data) => (typeof data === 'string' ? new TextEncoder().encode(data) : data);

/**
 * Validates and runs a step over memory, then reads every output: gives `output`, `contents` (bytes by port) and `texts`.
 * `inputs` are bytes or texts by port; `chunk` is how many bytes arrive at once, which no result must depend on.
 */
export async function run(type, spec, inputs, { config = {}, chunk = 65536 } = {}) {
  const made = new type();
  const step = () => {
    const given = type.inputs.filter(({ name }) => name in inputs).map(({ name }) => {
      const data = encoded(inputs[name]);
      const info = () => ({ mediaType: 'application/octet-stream', size: data.length });
      return new Input(name, { info, open: (port) => new MemorySource(data, chunk, port) });
    });
    return new Step('test1', structuredClone(spec), config, given);
  };
  for (const error of await made.validate(structuredClone(spec), config)) throw error;
  const { output, contents } = await decided(made, step());
  const bytes = {};
  const texts = {};
  for (const [name, content] of contents) {
    bytes[name] = await read(content, name);
    texts[name] = new TextDecoder().decode(bytes[name]);
  }
  return { output: JSON.parse(JSON.stringify(output)), contents: bytes, texts };

  async function read({ sameAs, kept, state }, name) {
    if (sameAs !== undefined) return encoded(inputs[sameAs]);
    if (kept) return kept.bytes();
    const raw = new MemorySink();
    await produced(made, step(), name, state, raw);
    return raw.bytes();
  }
}
