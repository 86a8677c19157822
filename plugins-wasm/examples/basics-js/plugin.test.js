// The example on this machine, without WebAssembly; the kit is put beside it.

import assert from 'node:assert';
import { test } from 'node:test';

import { Transformer, port, run, stored } from './ocm-plugin.js';
import { Broken, Count, Identity, Rot13, Split } from './plugin.js';

const DATA = 'Hello, Wörld\n'.repeat(100);
const bytes = (text) => new TextEncoder().encode(text);

test('bytes come out as they should in any chunks', async () => {
  for (const chunk of [1, 7, 4096]) {
    const texts = async (type, spec, data) => (await run(type, spec, { data }, { chunk })).texts;
    for (const way of ['same', 'splice', 'copy']) assert.equal((await texts(Identity, { way }, DATA)).data, DATA);
    const once = await texts(Rot13, {}, DATA);
    assert.equal(once.data, 'Uryyb, Jöeyq\n'.repeat(100));
    assert.equal((await texts(Rot13, {}, once.data)).data, DATA);
    const counted = await run(Count, {}, { data: DATA }, { chunk });
    assert.deepEqual([counted.output, counted.texts.data], [{ bytes: 1400, lines: 100 }, DATA]);
    assert.deepEqual(await texts(Split, { at: 5 }, DATA), { head: 'Hello', tail: DATA.slice(5) });
  }
});

/** A step that does this with its input. */
const step = (transform) =>
  class extends Transformer {
    static inputs = [port('data', '')];
    static outputs = [port('data', '')];
    transform(_step, source, sink) {
      return transform(source, sink);
    }
  };

test('ways of reading go on where the one before stopped', async () => {
  for (const [transform, expected] of [
    [(source, sink) => sink.passOn(source), 'añ\nb\n\nc'],
    [(source, sink) => { source.lines().next(); sink.passOn(source); }, 'b\n\nc'],
    [(source, sink) => { for (const line of source.lines()) if (line === 'b\n') break; sink.write(source.text()); }, '\nc'],
    [(source, sink) => { source.read(2); sink.write(source.read(2)); sink.write([...source.lines()].join('|')); }, '\xb1\nb\n|\n|c'],
    [(source, sink) => { source.read(4); for (const line of source.lines()) sink.write(`<${line}>`); }, '<b\n><\n><c>'],
    [(source, sink) => { sink.write(source.read(100)); sink.write(source.bytes()); sink.write(source.read(1)); }, 'añ\nb\n\nc'],
    [(source, sink) => { sink.write('ä'); sink.write(source.read(1)); sink.write('ö'.repeat(40000)); sink.write('!'); }, `äa${'ö'.repeat(40000)}!`],
    [async (source, sink) => { await null; sink.write(source.text()); }, 'añ\nb\n\nc'],
  ]) {
    for (const chunk of [1, 2, 3, 100]) {
      const ran = await run(step(transform), {}, { data: 'añ\nb\n\nc' }, { chunk });
      const told = expected.startsWith('\xb1') ? Uint8Array.of(0xb1, ...bytes(expected.slice(1))) : bytes(expected);
      assert.deepEqual(ran.contents.data, told, `${transform} in chunks of ${chunk}`);
    }
  }
});

test('what does not fit is an error, not a text with holes', async () => {
  const data = Uint8Array.of(97, 10, 0xc3);
  const lines = step((source, sink) => { for (const line of source.lines()) sink.write(line); });
  await assert.rejects(run(lines, {}, { data }), { kind: 'invalid-content', port: 'data' });
  const limited = step((source, sink) => sink.write(source.bytes(2)));
  await assert.rejects(run(limited, {}, { data }), { kind: 'invalid-content', message: 'it has more than 2 bytes' });
});

test('content can be written by functions that wait', async () => {
  class Waits extends Transformer {
    static outputs = [port('data', '')];
    run() {
      return { contents: { data: stored('text/plain', async (sink) => { await null; sink.write('late'); }) } };
    }
  }
  assert.equal((await run(Waits, {}, {})).texts.data, 'late');
});

test('what makes no sense is refused with its place', async () => {
  await assert.rejects(run(Split, { at: 0 }, { data: 'x' }), { kind: 'invalid-spec', field: '/at' });
  await assert.rejects(run(Split, { at: 9 }, { data: 'x' }), { kind: 'invalid-content', port: 'data', offset: 1 });
  for (const [how, expected] of [
    ['lookup', /undefined/],
    ['write', /texts and Uint8Arrays are written, not number/],
    ['return', /what is to be written goes to sink.write; string was returned/],
  ]) {
    await assert.rejects(run(Broken, { how }, { data: 'hello' }), { name: 'TypeError', message: expected });
  }
});
