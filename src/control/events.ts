/**
 * `.ctl/events`: what happened, one line each, in the grammar of `drbdsetup events2`:
 *
 *   exists|change|create|destroy group|device|site|log name:NAME key:value… time:ISO [reason:SENTENCE]
 *
 * It begins with `exists` lines for everything there is, ended by `exists -`. A value has no blanks; only
 * `reason` may have some, and therefore stands last.
 *
 * The text lives in memory and is bounded. When it would grow beyond `limit` it starts over with fresh `exists`
 * lines: the file gets shorter, which `tail -f` notices and answers by reading from the start, so that a
 * follower is in step again. The same happens when the daemon is restarted.
 */
export type EventVerb = 'exists' | 'change' | 'create' | 'destroy';
export type EventObject = 'group' | 'device' | 'site' | 'log';
export type EventKeys = Readonly<Record<string, string | number | boolean | undefined>>;

export interface EventThing {
  object: EventObject;
  name: string;
  keys: EventKeys;
}

const LIMIT = 1024 * 1024;

export class EventLog {
  private readonly things: () => readonly EventThing[];
  private readonly nowMs: () => number;
  private readonly limit: number;
  private parts: Buffer[] = [];
  private bytes = 0;
  private changedMs: number;

  /** `things` says what exists whenever the file starts over. */
  constructor(things: () => readonly EventThing[], nowMs: () => number = Date.now, limit = LIMIT) {
    this.things = things;
    this.nowMs = nowMs;
    this.limit = limit;
    this.changedMs = nowMs();
  }

  get size(): number {
    if (this.bytes === 0) this.begin();
    return this.bytes;
  }

  get mtimeMs(): number {
    return this.changedMs;
  }

  add(verb: EventVerb, object: EventObject, name: string, keys: EventKeys = {}, reason?: string): void {
    if (this.bytes === 0) this.begin();
    const line = eventLine(verb, object, name, keys, this.nowMs(), reason);
    if (this.bytes + Buffer.byteLength(line) > this.limit) this.begin();
    this.put(line);
  }

  read(offset: number, length: number): Buffer {
    if (this.bytes === 0) this.begin();
    if (this.parts.length > 1) this.parts = [Buffer.concat(this.parts)];
    return this.parts[0]!.subarray(Math.min(offset, this.bytes), Math.min(offset + length, this.bytes));
  }

  private begin(): void {
    this.parts = [];
    this.bytes = 0;
    const now = this.nowMs();
    for (const { object, name, keys } of this.things()) this.put(eventLine('exists', object, name, keys, now));
    this.put('exists -\n');
  }

  private put(line: string): void {
    const part = Buffer.from(line);
    this.parts.push(part);
    this.bytes += part.length;
    this.changedMs = this.nowMs();
  }
}

export function eventLine(
  verb: EventVerb,
  object: EventObject,
  name: string,
  keys: EventKeys,
  nowMs: number,
  reason?: string,
): string {
  const words = [verb, object, `name:${word(name)}`];
  for (const [key, value] of Object.entries(keys)) {
    if (value !== undefined) words.push(`${key}:${word(typeof value === 'boolean' ? (value ? 'yes' : 'no') : value)}`);
  }
  words.push(`time:${new Date(nowMs).toISOString()}`);
  if (reason !== undefined) words.push(`reason:${reason.replace(/\s+/g, ' ')}`);
  return `${words.join(' ')}\n`;
}

/** Blanks would end the word; a name or path that has some is shown with `\040`, as in mountinfo. */
function word(value: string | number): string {
  return String(value).replace(/[\s\\]/g, (ch) => `\\${ch.charCodeAt(0).toString(8).padStart(3, '0')}`);
}
