// The same for a plugin that needs `http`. Not to be changed.

import * as fetch from 'ocm:transformer/fetch@0.1.0';
import * as host from 'ocm:transformer/host@0.1.0';

import { connect } from './ocm-plugin.js';

connect(host, fetch);

export { transform } from './plugin.js';
