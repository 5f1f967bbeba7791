/**
 * Reads the Prometheus text format (version 0.0.4) and throws where a text is not valid: the checks are those of
 * the format's description, made strict where it leaves a choice (HELP and TYPE stand before every family).
 */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export interface Family {
  name: string;
  type: string;
  help: string;
  samples: Sample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const TYPES = ['counter', 'gauge', 'histogram', 'summary', 'untyped'];
const UNITS = /_(?:milli|micro|nano)?seconds|_(?:kilo|kibi|mega|mebi)?bytes/;

export function parseMetrics(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  let family: Family | undefined;
  let help: { name: string; text: string } | undefined;
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  for (const line of text.slice(0, -1).split('\n')) {
    const comment = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (comment?.[1] === 'HELP') {
      help = { name: comment[2]!, text: unescape(comment[3]!, false) };
      continue;
    }
    if (comment?.[1] === 'TYPE') {
      const name = comment[2]!;
      if (!NAME.test(name)) throw new Error(`${name}: not a name`);
      if (families.has(name)) throw new Error(`${name}: its lines do not stand together`);
      if (!TYPES.includes(comment[3]!)) throw new Error(`${line}: not a type`);
      if (help?.name !== name) throw new Error(`${name}: no HELP before its TYPE`);
      family = { name, type: comment[3]!, help: help.text, samples: [] };
      families.set(name, family);
      continue;
    }
    const sample = parseSample(line);
    if (family === undefined || baseOf(sample.name, family) !== family.name)
      throw new Error(`${line}: stands outside its family`);
    family.samples.push(sample);
  }
  for (const each of families.values()) checkFamily(each);
  return families;
}

/** The value of the one sample with these labels (and maybe more). */
export function valueOf(families: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const family = [...families.values()].find((f) => f.samples.some((s) => s.name === name));
  const hits = (family?.samples ?? []).filter(
    (s) => s.name === name && Object.entries(labels).every(([key, value]) => s.labels[key] === value),
  );
  if (hits.length !== 1) throw new Error(`${name}${JSON.stringify(labels)}: ${hits.length} samples`);
  return hits[0]!.value;
}

function baseOf(name: string, family: Family): string {
  return family.type === 'histogram' ? name.replace(/_(?:bucket|sum|count)$/, '') : name;
}

function parseSample(line: string): Sample {
  const hit = /^([^{ ]+)(?:\{(.*)\})? (\S+)$/.exec(line);
  if (hit === null) throw new Error(`${line}: not a sample`);
  const [, name = '', inner = '', text = ''] = hit;
  if (!NAME.test(name)) throw new Error(`${line}: not a name`);
  const labels: Record<string, string> = {};
  let rest = inner;
  while (rest !== '') {
    const label = /^([^=]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest);
    if (label === null || !LABEL.test(label[1]!)) throw new Error(`${line}: labels at ${rest}`);
    if (label[1]! in labels) throw new Error(`${line}: ${label[1]!} twice`);
    labels[label[1]!] = unescape(label[2]!, true);
    rest = rest.slice(label[0].length);
  }
  const value = text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text);
  if (Number.isNaN(value) && text !== 'NaN') throw new Error(`${line}: not a number`);
  return { name, labels, value };
}

function unescape(text: string, quotes: boolean): string {
  return text.replace(/\\(.)/g, (all, ch: string) => {
    if (ch === 'n') return '\n';
    if (ch === '\\' || (quotes && ch === '"')) return ch;
    throw new Error(`${text}: ${all} is no escape`);
  });
}

function checkFamily({ name, type, help, samples }: Family): void {
  if (help === '') throw new Error(`${name}: HELP is empty`);
  if (samples.length === 0) throw new Error(`${name}: no sample`);
  if ((type === 'counter') !== name.endsWith('_total')) throw new Error(`${name}: only counters end in _total`);
  const unit = UNITS.exec(name)?.[0];
  if (unit !== undefined && unit !== '_seconds' && unit !== '_bytes') throw new Error(`${name}: not a base unit`);
  const seen = new Set<string>();
  for (const sample of samples) {
    const key = `${sample.name}${JSON.stringify(Object.entries(sample.labels).sort())}`;
    if (seen.has(key)) throw new Error(`${key}: twice`);
    seen.add(key);
    if (type === 'counter' && !(sample.value >= 0)) throw new Error(`${key}: a counter below zero`);
  }
  if (type === 'histogram') checkHistogram(name, samples);
}

function checkHistogram(name: string, samples: Sample[]): void {
  const series = new Map<string, Sample[]>();
  for (const sample of samples) {
    const key = JSON.stringify(Object.entries(sample.labels).filter(([label]) => label !== 'le'));
    series.set(key, [...(series.get(key) ?? []), sample]);
  }
  for (const [key, all] of series) {
    const buckets = all.filter((s) => s.name === `${name}_bucket`);
    const of = (suffix: string): number => all.find((s) => s.name === `${name}_${suffix}`)?.value ?? NaN;
    const bound = (s: Sample): number => (s.labels['le'] === '+Inf' ? Infinity : Number(s.labels['le']));
    if (bound(buckets.at(-1)!) !== Infinity) throw new Error(`${name}${key}: no last bucket`);
    buckets.slice(1).forEach((bucket, i) => {
      if (!(bound(bucket) > bound(buckets[i]!))) throw new Error(`${name}${key}: bounds do not rise`);
      if (bucket.value < buckets[i]!.value) throw new Error(`${name}${key}: buckets are not cumulative`);
    });
    if (of('count') !== buckets.at(-1)!.value) throw new Error(`${name}${key}: count is not the last bucket`);
    if (!(of('sum') >= 0)) throw new Error(`${name}${key}: no sum`);
  }
}
