// Tests that run on this machine, without WebAssembly: npm test

import assert from 'node:assert';
import { test } from 'node:test';

import { run } from './ocm-plugin.js';
import { @TYPE@ } from './plugin.js';

const spec = { word: 'old', by: 'new' };

test('words are replaced however the bytes arrive', async () => {
  for (const chunk of [1, 7, 4096]) {
    const ran = await run(@TYPE@, spec, { data: 'an old\nöld old hat' }, { chunk });
    assert.equal(ran.texts.data, 'an new\nöld new hat');
  }
});

test('what is no word is refused', async () => {
  await assert.rejects(run(@TYPE@, { ...spec, word: '' }, { data: '' }), { kind: 'invalid-spec', field: '/word' });
});

test('what is no text is refused', async () => {
  await assert.rejects(run(@TYPE@, spec, { data: Uint8Array.of(65, 255) }), { kind: 'invalid-content', port: 'data' });
});
