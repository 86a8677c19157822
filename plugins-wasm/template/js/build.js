// Builds the component: npm run build

import { writeFile } from 'node:fs/promises';

import { componentize } from '@bytecodealliance/componentize-js';

import { transform } from './plugin.js';

const http = transform.describe().needs.some(({ capability }) => capability === 'http');
const { component } = await componentize({
  sourcePath: http ? 'component-http.js' : 'component.js',
  witPath: 'wit',
  worldName: http ? 'transformer-http' : 'transformer',
  // Not what `http` means here: requests go through `request` of the kit. Clock and random stay: without the right they are still.
  disableFeatures: ['http', 'fetch-event'],
});
await writeFile('@FILE@.wasm', component);
