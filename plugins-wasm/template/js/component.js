// What the component is made of: the host's functions, the kit, the plugin. Not to be changed.

import * as host from 'ocm:transformer/host@0.1.0';

import { connect } from './ocm-plugin.js';

connect(host);

export { transform } from './plugin.js';
