// A step type for ocm. The one function to fill is `transform`: it reads a stream and writes a stream.

import { Transformer, invalidSpec, plugin, port } from './ocm-plugin.js';

export class @TYPE@ extends Transformer {
  static type = '@TYPE@/v1alpha1';
  static documentation = 'Replaces a word by another.';
  static inputs = [port('data', 'a text, line by line')];
  static outputs = [port('data', 'the changed text')];
  // Inputs of the step besides its ports. Descriptions are shown to users.
  static spec = {
    type: 'object',
    additionalProperties: false,
    required: ['word', 'by'],
    properties: {
      word: { type: 'string', description: 'The word that is replaced.' },
      by: { type: 'string', description: 'What stands in its place.' },
    },
  };
  static examples = [
    '- id: replace1\n  type: @TYPE@/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    word: old\n    by: new\n',
  ];

  validate(spec) {
    return spec.word ? [] : [invalidSpec('this is no word', '/word')];
  }

  transform(step, source, sink) {
    const { word, by } = step.spec;
    for (const line of source.lines()) sink.write(line.replaceAll(word, () => by));
  }
}

export const transform = plugin({ name: '@NAME@', version: '0.1.0', documentation: 'Step types for ocm.', types: [@TYPE@] });
