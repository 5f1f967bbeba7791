/**
 * JSON schemas of what `--json` and status.json print, in as much of the standard as they need: `type`, `enum`, `const`,
 * `properties`, `required`, `additionalProperties`, `items`, `pattern`, `minimum`, `anyOf`, and `$ref` to another file of
 * the folder. Strict where the standard is lenient: an unknown keyword is a mistake, and an object that lists its
 * properties has no others.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT } from './mounted.js';

const FOLDER = join(PROJECT, 'test/fixtures/schemas');
const KEYWORDS = new Set(
  ['$ref', 'anyOf', 'const', 'enum', 'type', 'description', 'properties', 'required'].concat([
    'additionalProperties',
    'items',
    'pattern',
    'minimum',
  ]),
);
const TYPES = new Set(['string', 'number', 'integer', 'boolean', 'null', 'object', 'array']);

export interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  const?: unknown;
  enum?: unknown[];
  type?: string | string[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
  items?: Schema;
  pattern?: string;
  minimum?: number;
}

/** The schema of that name: `status` for the command's --json and for `.ctl/status.json`. */
export function schema(name: string): Schema {
  return JSON.parse(readFileSync(join(FOLDER, name.endsWith('.json') ? name : `${name}.json`), 'utf8')) as Schema;
}

/** Throws with the place of the first thing in `value` that its schema does not allow. */
export function conforms(value: unknown, name: string): void {
  const problem = problemWith(value, schema(name), '');
  assert.equal(
    problem,
    undefined,
    `${name}: ${problem ?? ''}; if it is meant, say so in test/fixtures/schemas/${name}.json`,
  );
}

function problemWith(value: unknown, s: Schema, at: string): string | undefined {
  const where = at === '' ? 'the whole' : at;
  if (s.$ref !== undefined) return problemWith(value, schema(s.$ref), at);
  if (s.anyOf !== undefined) {
    const problems = s.anyOf.map((each) => problemWith(value, each, at));
    return problems.includes(undefined) ? undefined : problems.join(' or ');
  }
  if ('const' in s && value !== s.const) return `${where} is ${JSON.stringify(value)}, not ${JSON.stringify(s.const)}`;
  if (s.enum !== undefined && !s.enum.includes(value))
    return `${where} is ${JSON.stringify(value)}, none of ${JSON.stringify(s.enum)}`;
  if (s.type !== undefined && ![s.type].flat().some((type) => isOf(value, type)))
    return `${where} is ${JSON.stringify(value)?.slice(0, 80)}, no ${[s.type].flat().join(' or ')}`;
  if (typeof value === 'string' && s.pattern !== undefined && !new RegExp(s.pattern, 'u').test(value))
    return `${where} is ${JSON.stringify(value)}, not like ${s.pattern}`;
  if (typeof value === 'number' && s.minimum !== undefined && value < s.minimum)
    return `${where} is ${value}, less than ${s.minimum}`;
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) {
      const problem = s.items === undefined ? undefined : problemWith(item, s.items, `${at}[${i}]`);
      if (problem !== undefined) return problem;
    }
  } else if (typeof value === 'object' && value !== null) return problemInObject(value, s, at);
  return undefined;
}

function problemInObject(value: object, s: Schema, at: string): string | undefined {
  const { properties = {}, required = [], additionalProperties = s.properties === undefined } = s;
  const where = at === '' ? 'the whole' : at;
  const missing = required.find((key) => !(key in value));
  if (missing !== undefined) return `${where} has no ${missing}`;
  for (const [key, each] of Object.entries(value)) {
    const own = properties[key] ?? additionalProperties;
    if (own === false) return `${where} has a ${key} that nobody told of`;
    const problem = own === true ? undefined : problemWith(each, own, at === '' ? key : `${at}.${key}`);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function isOf(value: unknown, type: string): boolean {
  switch (type) {
    case 'null':
      return value === null;
    case 'array':
      return Array.isArray(value);
    case 'integer':
      return Number.isInteger(value);
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
    default:
      return typeof value === type;
  }
}

/** A schema that is one: known words only, `required` names what `properties` has, references lead somewhere. */
export function checkSchema(s: Schema, where: string): void {
  for (const key of Object.keys(s)) assert.ok(KEYWORDS.has(key), `${where}: ${key} is no keyword that is understood`);
  for (const type of [s.type ?? []].flat()) assert.ok(TYPES.has(type), `${where}: ${type} is no type`);
  if (s.$ref !== undefined) schema(s.$ref);
  for (const key of s.required ?? [])
    assert.ok(key in (s.properties ?? {}), `${where}: ${key} is required, but of no kind`);
  for (const [key, each] of Object.entries(s.properties ?? {})) checkSchema(each, `${where}: ${key}`);
  for (const each of [...(s.anyOf ?? []), ...(s.items === undefined ? [] : [s.items])]) checkSchema(each, where);
  if (typeof s.additionalProperties === 'object') checkSchema(s.additionalProperties, where);
}
